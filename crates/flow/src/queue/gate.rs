//! Room that is given out before the work is there: a queue's bounds and rates, for an owner who keeps the items itself.
//!
//! Some work has to be looked at before its cost is known: a prompt is read to learn how many tokens it has. A [`Gate`]
//! gives room to the one who asks at once or refuses, so that nothing is spent on work for which there is no room. What
//! waits behind it may be a [`crate::Line`] without bounds of its own. It is told the time and never waits.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::throttle::Rate;
use super::ticket::{Capacity, Load, Reason};
use crate::rate::{DrainRate, TokenBucket};

/// Over this time the rate is measured at which work leaves to be served.
const WINDOW: Duration = Duration::from_secs(60);

/// Bounds what waits, and how fast it comes. A clone is the same gate. What one owner may take of it is no business of a
/// gate's: who knows the owners (a server, its keys) asks before.
///
/// ```
/// use std::time::Duration;
/// use flow::{Capacity, Gate};
///
/// let gate = Gate::new(Capacity::items(2).cost(100));
/// let now = Duration::ZERO;
/// let mut permit = gate.enter(now)?;
/// permit.weigh(80, 0, now)?; // now that its cost is known
/// assert!(gate.enter(now)?.weigh(30, 0, now).is_err());
/// permit.serve(now); // what it stood for waits no longer
/// # Ok::<(), flow::queue::Denied>(())
/// ```
#[derive(Clone)]
pub struct Gate {
    capacity: Capacity,
    inside: Arc<Mutex<Inside>>,
}

struct Inside {
    held: Load,
    rate: Option<TokenBucket>,
    drain: DrainRate,
}

/// Room for one item. Dropping it gives the room back.
pub struct Permit {
    gate: Gate,
    cost: u64,
    bytes: u64,
}

/// Why a gate gives no room, and after how long asking again is likely to help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Denied {
    /// What there is no room in.
    pub reason: Denial,
    /// Items that hold room now.
    pub held: usize,
    /// When to come back: the rate's next moment, or the backlog divided by the speed at which it shrinks.
    pub retry_after: Duration,
}

/// What a gate has no room in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Denial {
    /// One of the bounds.
    Full(Reason),
    /// More would pass than the rate allows.
    Rate,
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason {
            Denial::Full(reason) => reason.fmt(f)?,
            Denial::Rate => f.write_str("more would pass than the rate allows")?,
        }
        write!(f, "; try again in {:?}", self.retry_after)
    }
}

impl std::error::Error for Denied {}

impl Gate {
    /// A gate with these bounds and no limit of rate.
    pub fn new(capacity: Capacity) -> Self {
        let drain = DrainRate::new(WINDOW, Duration::ZERO);
        let inside = Inside { held: Load::default(), rate: None, drain };
        Self { capacity, inside: Arc::new(Mutex::new(inside)) }
    }

    /// Lets items in at this rate from now on; `None` is without limit.
    pub fn set_rate(&self, rate: Option<Rate>) {
        self.lock().rate = rate.map(|rate| rate.bucket());
    }

    /// Takes room for one item whose cost and size are not known yet; they count as none until it is weighed, but where
    /// the cost of others leaves nothing, nobody is let in to find out.
    ///
    /// # Errors
    /// When there is no room, or the rate is used up.
    pub fn enter(&self, now: Duration) -> Result<Permit, Denied> {
        let mut inside = self.lock();
        if let Some(reason) = self.capacity.objection(inside.held, 1, 0) {
            return Err(inside.full(reason, now));
        }
        if let Some(Err(retry_after)) = inside.rate.as_mut().map(|rate| rate.try_take(now, 1)) {
            return Err(Denied { reason: Denial::Rate, held: inside.held.items, retry_after });
        }
        inside.held.items += 1;
        Ok(Permit { gate: self.clone(), cost: 0, bytes: 0 })
    }

    /// Items that hold room.
    pub fn held(&self) -> usize {
        self.lock().held.items
    }

    /// The bounds.
    pub fn capacity(&self) -> Capacity {
        self.capacity
    }

    /// Notes that nothing has been waiting until now: such time says nothing about how fast a backlog would shrink.
    pub fn idle(&self, now: Duration) {
        self.lock().drain.idle(now);
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        // Nothing that could panic runs under the lock between two changes that belong together.
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inside {
    fn full(&mut self, reason: Reason, now: Duration) -> Denied {
        let held = self.held.items;
        Denied { reason: Denial::Full(reason), held, retry_after: self.drain.retry_after(held as u64, now) }
    }
}

impl Permit {
    /// Says what the item costs and how many bytes it takes up. One that is alone always fits.
    ///
    /// # Errors
    /// When there is no room for it beside the others; it then counts as what it did before.
    pub fn weigh(&mut self, cost: u64, bytes: u64, now: Duration) -> Result<(), Denied> {
        let mut inside = self.gate.lock();
        let Load { items, cost: all_cost, bytes: all_bytes } = inside.held;
        let others = Load { items: items - 1, cost: all_cost - self.cost, bytes: all_bytes - self.bytes };
        // As many items as may are inside, this one among them; only its cost and its size are in question.
        let bounds = Capacity { items: usize::MAX, ..self.gate.capacity };
        if let Some(reason) = bounds.objection(others, cost, bytes) {
            return Err(inside.full(reason, now));
        }
        // Neither sum overflows: the bounds are no larger than what a number can hold, and who is alone adds to zero.
        inside.held = Load { items, cost: others.cost + cost, bytes: others.bytes + bytes };
        (self.cost, self.bytes) = (cost, bytes);
        Ok(())
    }

    /// Gives the room back because the item's turn has come. How often that happens tells those who are refused when
    /// to come back.
    pub fn serve(self, now: Duration) {
        self.gate.lock().drain.record(1, now);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut inside = self.gate.lock();
        inside.held.items -= 1;
        inside.held.cost -= self.cost;
        inside.held.bytes -= self.bytes;
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate")
            .field("capacity", &self.capacity)
            .field("held", &self.held())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").field("cost", &self.cost).field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    const START: Duration = Duration::ZERO;

    #[test]
    fn room_is_bounded_by_items_and_cost_and_comes_back() {
        let gate = Gate::new(Capacity::items(2).cost(100));
        let mut first = gate.enter(START).unwrap();
        first.weigh(150, 0, START).unwrap();
        let denied = gate.enter(START).unwrap_err();
        assert_eq!((denied.reason, denied.held), (Denial::Full(Reason::Cost), 1));
        drop(first);
        let mut first = gate.enter(START).unwrap();
        let mut second = gate.enter(START).unwrap();
        let denied = gate.enter(START).unwrap_err();
        assert_eq!((denied.reason, denied.held), (Denial::Full(Reason::Items), 2));
        first.weigh(60, 0, START).unwrap();
        assert_eq!(second.weigh(41, 0, START).unwrap_err().reason, Denial::Full(Reason::Cost));
        second.weigh(40, 0, START).unwrap();
        first.weigh(50, 0, START).unwrap();
        second.weigh(50, 0, START).unwrap();
        drop((first, second));
        assert_eq!(gate.lock().held, Load::default());
    }

    #[test]
    fn bytes_are_counted_beside_cost() {
        let gate = Gate::new(Capacity::items(3).bytes(100));
        let mut first = gate.enter(START).unwrap();
        first.weigh(1, 70, START).unwrap();
        let mut second = gate.enter(START).unwrap();
        assert_eq!(second.weigh(1, 31, START).unwrap_err().reason, Denial::Full(Reason::Bytes));
        second.weigh(1, 30, START).unwrap();
        first.serve(START);
        assert_eq!(gate.lock().held, Load { items: 1, cost: 1, bytes: 30 });
    }

    #[test]
    fn the_extreme_cost_is_counted_as_far_as_it_goes() {
        let gate = Gate::new(Capacity::items(2));
        let mut first = gate.enter(START).unwrap();
        first.weigh(u64::MAX, 0, START).unwrap();
        assert_eq!(gate.enter(START).unwrap_err().reason, Denial::Full(Reason::Cost));
        first.weigh(1, 0, START).unwrap();
        let mut second = gate.enter(START).unwrap();
        assert!(second.weigh(u64::MAX, 0, START).is_err());
        drop((first, second));
        assert_eq!(gate.lock().held, Load::default());
    }

    #[test]
    fn who_is_refused_learns_when_to_come_back() {
        let gate = Gate::new(Capacity::items(4));
        let at = Duration::from_secs;
        for second in 1..=4 {
            gate.enter(at(second)).unwrap().serve(at(second));
        }
        let _held: Vec<_> = (0..4).map(|_| gate.enter(at(4)).unwrap()).collect();
        assert_eq!(gate.enter(at(4)).unwrap_err().retry_after, at(4));
        gate.set_rate(Some(Rate::per_second(NonZeroU32::MIN)));
        assert!(matches!(gate.enter(at(4)).unwrap_err().reason, Denial::Full(_)));
        drop(_held);
        gate.enter(at(4)).unwrap();
        let denied = gate.enter(at(4)).unwrap_err();
        assert_eq!((denied.reason, denied.retry_after), (Denial::Rate, at(1)));
        gate.enter(at(5)).unwrap();
    }
}
