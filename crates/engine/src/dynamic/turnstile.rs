//! The way from the queue to the batcher: a few go through at a time, in the order of the queue's policy.
//!
//! A batch is put together from those who have passed. Fairness is decided here, so no more pass than the next batches
//! can hold: whoever comes later and is more urgent still gets in before those who wait outside.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use flow::queue::line::Line;
use flow::queue::policy::PolicySettings;
use flow::{Capacity, Ticket, TicketId};
use tokio::sync::oneshot;

use crate::clock::Clock;

/// Lets a bounded sum of items and costs through. A clone is the same turnstile.
#[derive(Clone)]
pub(super) struct Turnstile {
    inside: Arc<Mutex<Inside>>,
    clock: Arc<dyn Clock>,
    most: Load,
}

struct Inside {
    /// Bounded by whoever lets items come here.
    line: Line<oneshot::Sender<Place>>,
    passed: Load,
}

/// Items and their cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Load {
    pub(super) items: usize,
    pub(super) cost: u64,
}

/// A place behind the turnstile; dropping it lets others through.
pub(super) struct Place {
    turnstile: Turnstile,
    cost: u64,
}

impl Turnstile {
    pub(super) fn new(policy: PolicySettings, most: Load, clock: Arc<dyn Clock>) -> Self {
        let inside = Inside { line: Line::new(Capacity::UNBOUNDED, policy), passed: Load::default() };
        Self { inside: Arc::new(Mutex::new(inside)), clock, most }
    }

    /// Waits until it is the ticket's turn. Dropped before, it leaves the line. `None` if the line is closed, which it
    /// never is.
    pub(super) async fn pass(&self, ticket: Ticket) -> Option<Place> {
        let (go, gone) = oneshot::channel();
        let id = self.lock().line.try_put(go, ticket, self.clock.now()).ok()?;
        let _leaving = Leaving { turnstile: self, id };
        self.let_through();
        gone.await.ok()
    }

    /// What waits.
    pub(super) fn waiting(&self) -> usize {
        self.lock().line.len()
    }

    /// What is behind the turnstile.
    pub(super) fn passed(&self) -> Load {
        self.lock().passed
    }

    /// How long the oldest has waited.
    pub(super) fn oldest_age(&self) -> Duration {
        let now = self.clock.now();
        self.lock().line.oldest_age(now).unwrap_or_default()
    }

    fn let_through(&self) {
        while let Some((go, place)) = self.next() {
            // Whoever has gone meanwhile drops the place again, which lets the next one through.
            drop(go.send(place));
        }
    }

    fn next(&self) -> Option<(oneshot::Sender<Place>, Place)> {
        let now = self.clock.now();
        let mut inside = self.lock();
        let (_, ticket) = inside.line.next_ticket(now)?;
        let Load { items, cost } = inside.passed;
        let is_alone = items == 0;
        if !is_alone && (items >= self.most.items || cost.saturating_add(ticket.cost) > self.most.cost) {
            return None;
        }
        let taken = inside.line.take(now)?;
        inside.passed = Load { items: items + 1, cost: cost.saturating_add(ticket.cost) };
        drop(inside);
        Some((taken.item, Place { turnstile: self.clone(), cost: ticket.cost }))
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        // Nothing that could panic runs under the lock between two changes that belong together.
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut inside = self.turnstile.lock();
        inside.passed.items -= 1;
        inside.passed.cost = inside.passed.cost.saturating_sub(self.cost);
        drop(inside);
        self.turnstile.let_through();
    }
}

/// Takes a ticket out of the line that nobody waits for any more, if it is still there.
struct Leaving<'a> {
    turnstile: &'a Turnstile,
    id: TicketId,
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        let left = self.turnstile.lock().line.remove(self.id);
        drop(left);
    }
}
