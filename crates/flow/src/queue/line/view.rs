//! What can be seen of a line.

use std::fmt;
use std::time::Duration;

use super::Line;
use crate::queue::lanes::{Seen, Slot};
use crate::queue::moment::Moment;
use crate::queue::{Capacity, TicketId};

impl<T> Line<T> {
    /// How many would be taken before that ticket if nothing else came or went and no time passed.
    pub fn ahead_of(&mut self, id: TicketId, now: Duration) -> Option<usize> {
        self.order(now).iter().position(|other| *other == id)
    }

    /// The tickets in the order in which they would be taken if nothing else came or went and no time passed.
    pub fn order(&mut self, now: Duration) -> Vec<TicketId> {
        self.advance(Moment::of(now));
        self.policy.order(&self.lanes, self.now.nanos())
    }

    /// The item of a ticket that waits.
    pub fn item(&self, id: TicketId) -> Option<&T> {
        let sorted = self.lanes.get(id).or_else(|| self.overdue.get(&id).map(Slot::seen));
        sorted.or_else(|| self.unsorted.get(id)).map(|slot| slot.item)
    }

    /// The item of a ticket that waits, to be changed in its place.
    pub fn item_mut(&mut self, id: TicketId) -> Option<&mut T> {
        self.sort();
        match self.lanes.get_mut(id) {
            Some(item) => Some(item),
            None => self.overdue.get_mut(&id).map(|slot| &mut slot.item),
        }
    }

    /// All items in order of arrival, those included whose deadline has passed and which `expire` has not handed out.
    pub fn iter(&self) -> impl Iterator<Item = (TicketId, &T)> {
        let overdue = self.overdue.values().map(Slot::seen);
        let mut all: Vec<Seen<'_, T>> =
            self.lanes.iter().chain(self.unsorted.iter()).chain(overdue).collect();
        all.sort_unstable_by_key(|slot| slot.id);
        all.into_iter().map(|slot| (slot.id, slot.item))
    }

    /// The item that arrived first.
    pub fn oldest(&self) -> Option<(TicketId, &T)> {
        self.oldest_slot().map(|slot| (slot.id, slot.item))
    }

    /// Number of items.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no item.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Sum of the costs of all items.
    pub fn cost(&self) -> u64 {
        self.cost
    }

    /// Sum of the bytes of all items, as their tickets say.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The bounds.
    pub fn capacity(&self) -> Capacity {
        self.capacity
    }

    /// How long the item that arrived first has been waiting; time spent outside between `take` and `put_back` counts.
    pub fn oldest_age(&self, now: Duration) -> Option<Duration> {
        let arrived = Duration::from_nanos(self.oldest_slot()?.arrived);
        Some(now.saturating_sub(arrived))
    }

    fn oldest_slot(&self) -> Option<Seen<'_, T>> {
        let overdue = self.overdue.first_key_value().map(|(_, slot)| slot.seen());
        let waiting = self.lanes.oldest().or_else(|| self.unsorted.first());
        waiting.into_iter().chain(overdue).min_by_key(|slot| slot.id)
    }
}

impl<T> fmt::Debug for Line<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line")
            .field("policy", &self.policy)
            .field("len", &self.len())
            .field("cost", &self.cost())
            .field("bytes", &self.bytes())
            .field("capacity", &self.capacity)
            .field("is_open", &self.is_open)
            .finish_non_exhaustive()
    }
}
