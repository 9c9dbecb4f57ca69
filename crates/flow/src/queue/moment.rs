//! When something happens, in one word: what is asked with every act is best asked in one instruction.

use std::time::Duration;

/// A time on the clock of a queue, in nanoseconds; what is 584 years ahead or more is never.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment(u64);

impl Moment {
    pub(super) const START: Self = Self(0);
    pub(super) const NEVER: Self = Self(u64::MAX);

    #[inline]
    pub(super) fn of(time: Duration) -> Self {
        Self(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
    }

    #[inline]
    pub(super) const fn nanos(self) -> u64 {
        self.0
    }

    /// The time on the clock.
    pub(super) fn time(self) -> Duration {
        if self == Self::NEVER { Duration::MAX } else { Duration::from_nanos(self.0) }
    }

    /// So much later.
    pub(super) fn after(self, wait: Duration) -> Self {
        Self(self.0.saturating_add(Self::of(wait).0))
    }

    /// How long ago that was; nothing if it has not been yet.
    #[inline]
    pub(super) fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}
