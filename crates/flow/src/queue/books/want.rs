//! What a taker asks for, and what it gets.

use std::time::Duration;

use crate::queue::lanes::Batch;
use crate::queue::leases::LeaseId;
use crate::queue::past::Attempt;
use crate::queue::{Popped, Taken, UpTo};

/// What a taker asks for, and what it gets.
pub(in crate::queue) struct Want<T> {
    pub(super) way: Way,
    /// At most so many.
    pub(super) most: usize,
    /// At most so much cost, unless the first item alone is dearer.
    pub(super) cost: u64,
    pub(in crate::queue) items: Few<Taken<T>>,
    /// Items before those, in batches.
    pub(super) batches: Vec<Batch<T>>,
    pub(in crate::queue) leases: Few<Goods<T>>,
}

/// What taking an item means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::queue) enum Way {
    /// It is out until it is acknowledged.
    Lease,
    /// It is gone.
    ForGood,
}

/// One thing, which needs no memory of its own, or several.
pub(in crate::queue) struct Few<X> {
    first: Option<X>,
    more: Vec<X>,
}

impl<X> Few<X> {
    fn none() -> Self {
        Self { first: None, more: Vec::new() }
    }

    pub(super) fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.more.len()
    }

    pub(super) fn push(&mut self, thing: X) {
        if self.more.capacity() > 0 || self.first.is_some() {
            self.more.push(thing);
        } else {
            self.first = Some(thing);
        }
    }

    pub(in crate::queue) fn into_first(mut self) -> Option<X> {
        self.first.or_else(|| self.more.pop())
    }

    pub(in crate::queue) fn into_vec(mut self) -> Vec<X> {
        self.first.into_iter().for_each(|first| self.more.insert(0, first));
        self.more
    }
}

/// An item that is out on lease.
pub(in crate::queue) struct Goods<T> {
    pub(in crate::queue) taken: Taken<T>,
    pub(in crate::queue) since: Duration,
    pub(in crate::queue) attempt: u32,
    /// How the last attempts before this one ended.
    pub(in crate::queue) history: Vec<Attempt>,
    /// For a lease that runs out.
    pub(in crate::queue) lease: Option<LeaseId>,
    /// What serving it has cost, if its taker said so.
    pub(in crate::queue) charged: Option<u64>,
}

impl<T> Want<T> {
    pub(in crate::queue) fn new(way: Way, up_to: UpTo) -> Self {
        let (items, leases) = (Few::none(), Few::none());
        Self { way, most: up_to.items.max(1), cost: up_to.cost, items, batches: Vec::new(), leases }
    }

    /// All items that were taken for good.
    pub(in crate::queue) fn into_popped(self) -> Popped<T>
    where
        T: 'static,
    {
        Popped::new(self.batches, self.items.into_vec())
    }

    /// Makes room for so many at most.
    pub(super) fn reserve(&mut self, there: usize) {
        let count = self.most.min(there);
        match self.way {
            _ if count < 2 => {}
            Way::Lease => self.leases.more.reserve(count),
            Way::ForGood => self.items.more.reserve(count),
        }
    }

    pub(super) fn len(&self) -> usize {
        match self.way {
            Way::Lease => self.leases.len(),
            Way::ForGood => self.items.len() + self.batches.iter().map(Batch::len).sum::<usize>(),
        }
    }
}
