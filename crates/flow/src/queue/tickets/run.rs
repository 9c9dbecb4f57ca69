//! Tickets in order of arrival: what every policy is made of.

use std::collections::BTreeSet;
use std::iter;

use super::{Place, Standing, Tickets};
use crate::queue::TicketId;

/// A list of tickets in order of arrival. Joining at the end, leaving anywhere and looking at the first are O(1).
///
/// The links stand in the tickets themselves, so a ticket can be in one run at a time. Those that come back out of
/// order, because their taker put them back, stand in a set of their own: were they linked in, the right place would
/// have to be searched from one end, and a thousand of them would take a million steps.
#[derive(Debug, Default)]
pub(in crate::queue) struct Run {
    first: Option<Place>,
    last: Option<Place>,
    returned: BTreeSet<(TicketId, Place)>,
}

impl Run {
    /// Takes in a ticket.
    pub(in crate::queue) fn join(&mut self, place: Place, tickets: &mut Tickets) {
        let id = tickets.id(place);
        match self.last {
            Some(last) if tickets.id(last) > id => {
                tickets.mark_mut(place).standing = Standing::Returned;
                self.returned.insert((id, place));
                return;
            }
            Some(last) => tickets.mark_mut(last).after = Some(place),
            None => self.first = Some(place),
        }
        let mark = tickets.mark_mut(place);
        (mark.before, mark.after, mark.standing) = (self.last, None, Standing::Linked);
        self.last = Some(place);
    }

    /// Lets go a ticket that is in this run.
    pub(in crate::queue) fn leave(&mut self, place: Place, tickets: &mut Tickets) {
        let mark = tickets.mark(place);
        if mark.standing == Standing::Returned {
            self.returned.remove(&(mark.id, place));
            return;
        }
        let (before, after) = (mark.before, mark.after);
        match before {
            Some(before) => tickets.mark_mut(before).after = after,
            None => self.first = after,
        }
        match after {
            Some(after) => tickets.mark_mut(after).before = before,
            None => self.last = before,
        }
    }

    /// The ticket that came first.
    #[inline]
    pub(in crate::queue) fn first(&self, tickets: &Tickets) -> Option<Place> {
        if self.returned.is_empty() {
            return self.first;
        }
        let returned = self.returned.first().copied();
        match (self.first, returned) {
            (Some(first), Some((id, place))) => Some(if id < tickets.id(first) { place } else { first }),
            (first, returned) => first.or(returned.map(|(_, place)| place)),
        }
    }

    /// Whether there is no ticket.
    pub(in crate::queue) fn is_empty(&self) -> bool {
        self.first.is_none() && self.returned.is_empty()
    }

    /// All tickets, in order of arrival.
    pub(in crate::queue) fn iter<'a>(&'a self, tickets: &'a Tickets) -> impl Iterator<Item = Place> + 'a {
        let mut linked = iter::successors(self.first, |place| tickets.mark(*place).after).peekable();
        let mut returned = self.returned.iter().copied().peekable();
        iter::from_fn(move || match (linked.peek(), returned.peek()) {
            (Some(first), Some((id, _))) if tickets.id(*first) < *id => linked.next(),
            (_, Some(_)) => returned.next().map(|(_, place)| place),
            (_, None) => linked.next(),
        })
    }
}
