//! The items that are out on lease for a limited time, and when each comes back.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use slab::Slab;

use super::{Taken, TicketId};

/// Names one lease: a place in the table, and for which attempt at which item it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LeaseId {
    place: usize,
    pub(super) id: TicketId,
    pub(super) attempt: u32,
}

/// What the queue keeps while an item is out.
pub(super) struct Out<T> {
    /// A copy, which the next taker gets if the first lets its time pass.
    pub(super) taken: Taken<T>,
    pub(super) attempt: u32,
    pub(super) since: Duration,
    due: Duration,
}

/// All leases that run.
pub(super) struct Leases<T> {
    out: Slab<Out<T>>,
    /// By the time at which they run out. A lease that has ended or was extended stays here until it comes up, or until
    /// such leftovers are the greater part.
    dues: BinaryHeap<Reverse<(Duration, LeaseId)>>,
}

impl<T> Leases<T> {
    pub(super) fn new() -> Self {
        Self { out: Slab::new(), dues: BinaryHeap::new() }
    }

    /// Begins a lease that runs out at `due`.
    pub(super) fn grant(&mut self, taken: Taken<T>, attempt: u32, since: Duration, due: Duration) -> LeaseId {
        let id = taken.id;
        let place = self.out.insert(Out { taken, attempt, since, due });
        let lease = LeaseId { place, id, attempt };
        self.dues.push(Reverse((due, lease)));
        lease
    }

    /// Ends a lease, if it still runs.
    pub(super) fn end(&mut self, lease: LeaseId) -> Option<Out<T>> {
        let out = self.is_running(lease).then(|| self.out.remove(lease.place));
        self.tidy();
        out
    }

    /// Lets a lease run out at another time, if it still runs.
    pub(super) fn extend(&mut self, lease: LeaseId, due: Duration) -> bool {
        let is_running = self.is_running(lease);
        if is_running {
            self.out[lease.place].due = due;
            self.dues.push(Reverse((due, lease)));
            self.tidy();
        }
        is_running
    }

    /// One lease that has run out.
    pub(super) fn pop_due(&mut self, now: Duration) -> Option<Out<T>> {
        self.tidy();
        let &Reverse((due, lease)) = self.dues.peek()?;
        if due > now {
            return None;
        }
        self.dues.pop();
        Some(self.out.remove(lease.place))
    }

    /// When the next lease runs out.
    pub(super) fn due(&self) -> Duration {
        self.dues.peek().map_or(Duration::MAX, |Reverse((due, _))| *due)
    }

    /// Ends all leases.
    pub(super) fn recall(&mut self) -> Vec<Out<T>> {
        self.dues.clear();
        self.out.drain().collect()
    }

    /// Whether a lease has not ended.
    pub(super) fn is_running(&self, lease: LeaseId) -> bool {
        let out = self.out.get(lease.place);
        out.is_some_and(|out| out.taken.id == lease.id && out.attempt == lease.attempt)
    }

    fn is_current(out: &Slab<Out<T>>, due: Duration, lease: LeaseId) -> bool {
        let out = out.get(lease.place);
        out.is_some_and(|out| out.taken.id == lease.id && out.attempt == lease.attempt && out.due == due)
    }

    /// Leaves a running lease on top, and no more leftovers than leases.
    fn tidy(&mut self) {
        while let Some(&Reverse((due, lease))) = self.dues.peek()
            && !Self::is_current(&self.out, due, lease)
        {
            self.dues.pop();
        }
        if self.dues.len() > 2 * self.out.len() + 64 {
            let out = &self.out;
            self.dues.retain(|Reverse((due, lease))| Self::is_current(out, *due, *lease));
        }
    }
}
