//! When a queue only grows, serving it in order makes everyone late. Then those who have waited too long are let go.
//!
//! This is controlled delay (Nichols and Jacobson, "Controlling Queue Delay", ACM Queue 2012) in the form used for
//! request queues (Maurer, "Fail at Scale", ACM Queue 2015): a queue is overloaded when over an interval not one item
//! waited less than the target; a burst that drains within the interval is not overload. While a queue is overloaded,
//! what has waited twice the target is let go when its turn comes. In the order of arrival everyone then waits nearly
//! that long; with adaptive LIFO (the same paper) the newest are served at once, and the few who came just before the
//! overload pay for it.

use std::time::Duration;

/// When a queue counts as overloaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlledDelay {
    /// The wait that is always all right. Where serving one item takes longer, that time counts instead.
    pub target: Duration,
    /// How long a backlog may last.
    pub interval: Duration,
    /// Who is served while it lasts longer than that.
    pub order: OverloadOrder,
}

/// Who is served while a queue is overloaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OverloadOrder {
    /// Whose turn it is, as ever.
    #[default]
    ByPolicy,
    /// Who came last. Only under the policy `fifo`: the others say more about an item than when it came, and keep their
    /// order.
    NewestFirst,
}

impl ControlledDelay {
    /// The same, with the newest first while the queue is overloaded.
    #[must_use]
    pub fn adaptive_lifo(mut self) -> Self {
        self.order = OverloadOrder::NewestFirst;
        self
    }
}

impl Default for ControlledDelay {
    /// 5 ms over 100 ms.
    fn default() -> Self {
        let (target, interval) = (Duration::from_millis(5), Duration::from_millis(100));
        Self { target, interval, order: OverloadOrder::ByPolicy }
    }
}

/// The state of the control.
pub(super) struct Overload {
    control: ControlledDelay,
    /// The shortest wait in this interval; `None` before its first item.
    shortest: Option<Duration>,
    ends: Duration,
    is_overloaded: bool,
}

impl Overload {
    pub(super) fn new(control: ControlledDelay) -> Self {
        Self { control, shortest: None, ends: Duration::ZERO, is_overloaded: false }
    }

    /// Notes how long the item waited whose turn it is, and says whether to let it go.
    pub(super) fn lets_go(&mut self, waited: Duration, service: Option<Duration>, now: Duration) -> bool {
        let target = self.control.target.max(service.unwrap_or_default());
        if now >= self.ends {
            self.is_overloaded = self.shortest.is_some_and(|shortest| shortest > target);
            self.shortest = None;
            self.ends = now.saturating_add(self.control.interval);
        }
        self.shortest = Some(self.shortest.map_or(waited, |shortest| shortest.min(waited)));
        self.is_overloaded && waited > 2 * target
    }

    /// Whether the newest is to be served instead of the one whose turn it is.
    pub(super) fn prefers_newest(&self) -> bool {
        self.is_overloaded && self.control.order == OverloadOrder::NewestFirst
    }
}

/// So many of the last service times are kept.
const KEPT: usize = 64;
/// The median is taken again after so many.
const PACE: usize = 16;

/// How long serving an item takes: the median of the last ones.
#[derive(Default)]
pub(super) struct Service {
    last: Vec<Duration>,
    next: usize,
    median: Option<Duration>,
}

impl Service {
    pub(super) fn record(&mut self, time: Duration) {
        if self.last.len() < KEPT {
            self.last.push(time);
        } else {
            self.last[self.next % KEPT] = time;
        }
        self.next = self.next.wrapping_add(1);
        if self.next.is_multiple_of(PACE) {
            let mut sorted = self.last.clone();
            sorted.sort_unstable();
            self.median = sorted.get(sorted.len() / 2).copied();
        }
    }

    /// `None` until a few items have been served.
    pub(super) fn median(&self) -> Option<Duration> {
        self.median
    }
}
