//! The requests that wait, in the order in which they will be served.

use std::collections::BTreeMap;

use protocol::Priority;

use crate::request::Request;

/// Waiting requests: the most urgent band first, then in order of acceptance.
#[derive(Default)]
pub(crate) struct Line {
    waiting: BTreeMap<(Priority, u64), Request>,
    moved: bool,
}

impl Line {
    /// Adds a request.
    pub(crate) fn push(&mut self, request: Request) {
        self.waiting.insert((request.band(), request.order), request);
        self.moved = true;
    }

    /// The request that is served next.
    pub(crate) fn head(&self) -> Option<&Request> {
        self.waiting.first_key_value().map(|(_, request)| request)
    }

    /// Takes the request that is served next.
    pub(crate) fn pop(&mut self) -> Option<Request> {
        self.moved = true;
        self.waiting.pop_first().map(|(_, request)| request)
    }

    /// Takes the request of that order, if it waits.
    pub(crate) fn remove(&mut self, order: u64) -> Option<Request> {
        let found = [Priority::High, Priority::Normal, Priority::Low]
            .into_iter()
            .find_map(|band| self.waiting.remove(&(band, order)));
        self.moved |= found.is_some();
        found
    }

    /// Takes all requests that `choose` chooses.
    pub(crate) fn take(&mut self, mut choose: impl FnMut(&Request) -> bool) -> Vec<Request> {
        let taken: Vec<Request> =
            self.waiting.extract_if(.., |_, request| choose(request)).map(|(_, r)| r).collect();
        self.moved |= !taken.is_empty();
        taken
    }

    /// Tells every request how many are ahead of it, if the line has moved.
    pub(crate) fn announce(&mut self) {
        if std::mem::take(&mut self.moved) {
            for (request, ahead) in self.waiting.values_mut().zip(0..) {
                request.is_behind(ahead);
            }
        }
    }

    /// The waiting requests in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Request> {
        self.waiting.values()
    }

    /// Whether nobody waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}
