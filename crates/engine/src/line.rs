//! The requests that wait, in the order of the queue's policy.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::time::Duration;

use flow::queue::line;
use flow::queue::policy::PolicySettings;
use flow::{Capacity, TicketId};
use protocol::Refusal;

use crate::request::Request;

/// A queue of requests that are called by their order of acceptance.
pub(crate) struct Line {
    queue: line::Line<Request>,
    tickets: HashMap<u64, TicketId>,
    has_moved: bool,
    /// How many wait whose clients hear of their place: nobody does who waits for a vector.
    listeners: usize,
}

impl Line {
    /// An empty line. It is not bounded: whoever comes here has passed the [`flow::Gate`].
    pub(crate) fn new(policy: PolicySettings) -> Self {
        Self {
            queue: line::Line::new(Capacity::UNBOUNDED, policy),
            tickets: HashMap::new(),
            has_moved: false,
            listeners: 0,
        }
    }

    /// Adds a request; gives it back if the line is closed.
    pub(crate) fn push(&mut self, request: Request, now: Duration) -> Result<(), Box<Request>> {
        let (order, ticket) = (request.order, request.queue_ticket());
        let hears = usize::from(request.wants_text());
        let id = self.queue.try_put(request, ticket, now).map_err(|refused| Box::new(refused.item))?;
        self.tickets.insert(order, id);
        self.listeners += hears;
        self.has_moved = true;
        Ok(())
    }

    /// The request that is served next.
    pub(crate) fn head(&mut self, now: Duration) -> Option<&Request> {
        self.queue.peek(now)
    }

    /// Takes the request that is served next.
    pub(crate) fn pop(&mut self, now: Duration) -> Option<Request> {
        let request = self.queue.take(now)?.item;
        self.forget(&request);
        Some(request)
    }

    /// Counts what a request that was popped has taken of the engine's time, now that it has ended: until then its
    /// tenant was charged what it might take.
    pub(crate) fn charge(&mut self, request: &Request) {
        self.queue.charge(&request.queue_ticket(), request.spent());
    }

    /// Takes the request of that order, if it waits.
    pub(crate) fn remove(&mut self, order: u64) -> Option<Request> {
        let request = self.queue.remove(*self.tickets.get(&order)?)?;
        self.forget(&request);
        Some(request)
    }

    /// Takes the requests whose deadline has passed.
    pub(crate) fn expire(&mut self, now: Duration) -> Vec<Request> {
        let late: Vec<Request> = self.queue.expire(now).into_iter().map(|taken| taken.item).collect();
        late.iter().for_each(|request| self.forget(request));
        late
    }

    /// Takes everything.
    pub(crate) fn drain(&mut self) -> Vec<Request> {
        self.tickets.clear();
        self.listeners = 0;
        self.queue.drain().into_iter().map(|taken| taken.item).collect()
    }

    /// Tells every request how many are ahead of it, if the line has moved.
    pub(crate) fn announce(&mut self, now: Duration) {
        if std::mem::take(&mut self.has_moved) && self.listeners > 0 {
            for (id, ahead) in self.queue.order(now).into_iter().zip(0..) {
                if let Some(request) = self.queue.item_mut(id).filter(|request| request.wants_text()) {
                    request.is_behind(ahead);
                }
            }
        }
    }

    /// The order, and what is set about it.
    pub(crate) fn policy(&self) -> &PolicySettings {
        self.queue.policy()
    }

    /// Goes on in another order; what is `None` and weights that are not named stay as they are.
    ///
    /// # Errors
    /// When there is no such policy.
    pub(crate) fn set_policy(
        &mut self,
        policy: Option<&str>,
        age_step: Option<Duration>,
        weights: &[(String, NonZeroU32)],
    ) -> Result<(), Refusal> {
        let mut settings = self.queue.policy().clone();
        if let Some(policy) = policy {
            settings.discipline = policy.parse().map_err(|error: flow::FlowError| {
                Refusal::InvalidParameter { param: "queue_policy".to_owned(), message: error.to_string() }
            })?;
        }
        settings.age_step = age_step.unwrap_or(settings.age_step);
        let weights = weights.iter();
        let settings = weights.fold(settings, |settings, (who, weight)| settings.weight(&**who, *weight));
        self.queue.set_policy(settings);
        self.has_moved = true;
        Ok(())
    }

    /// When the request came that has waited longest.
    pub(crate) fn oldest(&self) -> Option<Duration> {
        self.queue.oldest().map(|(_, request)| request.accepted_at)
    }

    /// The orders of the waiting requests, first come first.
    #[cfg(test)]
    pub(crate) fn orders(&self) -> Vec<u64> {
        self.queue.iter().map(|(_, request)| request.order).collect()
    }

    /// Whether nobody waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    fn forget(&mut self, request: &Request) {
        self.tickets.remove(&request.order);
        self.listeners -= usize::from(request.wants_text());
        self.has_moved = true;
    }
}
