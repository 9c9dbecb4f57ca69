//! A rate limit that allows bursts.

use std::num::NonZeroU32;
use std::time::Duration;

/// Lets `tokens` pass per `per`, and up to `burst` at once after a quiet time.
///
/// This is the generic cell rate algorithm: one number, the time at which all that was taken would have passed at an
/// even rate. In any window of length t, at most `tokens · t / per + burst` pass. Times are kept in nanoseconds
/// multiplied by `tokens`, in which a token takes a whole number, so nothing is lost to rounding over any time.
#[derive(Clone, Debug)]
pub struct TokenBucket {
    tokens: u128,
    per_nanos: u128,
    burst: u128,
    /// In nanoseconds times `tokens`.
    all_passed_at: u128,
}

impl TokenBucket {
    /// A full bucket. A `per` of zero counts as one nanosecond.
    pub fn new(tokens: NonZeroU32, per: Duration, burst: NonZeroU32) -> Self {
        Self {
            tokens: u128::from(tokens.get()),
            per_nanos: per.as_nanos().max(1),
            burst: u128::from(burst.get()),
            all_passed_at: 0,
        }
    }

    /// Takes `n` tokens, `now` after a moment of the owner's choice that is the same in every call.
    ///
    /// # Errors
    /// Takes nothing and says after how long `n` tokens will be there, if nobody takes any meanwhile; `Duration::MAX`
    /// if `n` is more than the burst and will never be.
    pub fn try_take(&mut self, now: Duration, n: u32) -> Result<(), Duration> {
        let n = u128::from(n);
        if n > self.burst {
            return Err(Duration::MAX);
        }
        let now = now.as_nanos().saturating_mul(self.tokens);
        let passed_at = self.all_passed_at.max(now).saturating_add(n.saturating_mul(self.per_nanos));
        let latest = now.saturating_add(self.burst.saturating_mul(self.per_nanos));
        if passed_at <= latest {
            self.all_passed_at = passed_at;
            return Ok(());
        }
        Err(self.until(latest, passed_at))
    }

    /// As [`TokenBucket::try_take`], but a full bucket gives more than it holds: what is missing is owed, and nothing
    /// passes before it has come in. So work that is larger than the burst has its turn too, and the rate holds all the
    /// same.
    ///
    /// # Errors
    /// Takes nothing and says after how long it could, if nobody takes any meanwhile.
    pub fn try_take_owing(&mut self, now: Duration, n: u32) -> Result<(), Duration> {
        let at_once = n.min(u32::try_from(self.burst).unwrap_or(u32::MAX));
        self.try_take(now, at_once)?;
        self.owe(now, n - at_once);
        Ok(())
    }

    /// Takes `n` tokens whether they are there or not; what is missing is owed.
    pub fn owe(&mut self, now: Duration, n: u32) {
        let begun = self.all_passed_at.max(now.as_nanos().saturating_mul(self.tokens));
        self.all_passed_at = begun.saturating_add(u128::from(n).saturating_mul(self.per_nanos));
    }

    /// Gives back `n` tokens that were taken and not needed. The bucket holds no more than its burst all the same.
    pub fn give_back(&mut self, n: u32) {
        self.all_passed_at = self.all_passed_at.saturating_sub(u128::from(n).saturating_mul(self.per_nanos));
    }

    /// Tokens that are there.
    pub fn available(&self, now: Duration) -> u32 {
        let now = now.as_nanos().saturating_mul(self.tokens);
        let latest = now.saturating_add(self.burst.saturating_mul(self.per_nanos));
        let tokens = latest.saturating_sub(self.all_passed_at.max(now)) / self.per_nanos;
        u32::try_from(tokens).unwrap_or(u32::MAX)
    }

    /// After how long it is full, if nobody takes any meanwhile.
    pub fn full_after(&self, now: Duration) -> Duration {
        self.until(now.as_nanos().saturating_mul(self.tokens), self.all_passed_at)
    }

    /// The most tokens that it holds.
    pub fn burst(&self) -> u32 {
        u32::try_from(self.burst).unwrap_or(u32::MAX)
    }

    /// The time between two moments in its own measure.
    fn until(&self, from: u128, to: u128) -> Duration {
        let wait = to.saturating_sub(from).div_ceil(self.tokens);
        Duration::from_nanos(u64::try_from(wait).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bucket(tokens: u32, per: Duration, burst: u32) -> TokenBucket {
        TokenBucket::new(NonZeroU32::new(tokens).unwrap(), per, NonZeroU32::new(burst).unwrap())
    }

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let mut limit = bucket(3, Duration::from_secs(1), 2);
        let at = Duration::from_millis;
        assert_eq!(limit.try_take(at(5), 2), Ok(()));
        let wait = limit.try_take(at(5), 1).unwrap_err();
        assert_eq!(wait, Duration::from_nanos(333_333_334));
        assert!(limit.try_take(at(5) + wait - Duration::from_nanos(1), 1).is_err());
        assert_eq!(limit.try_take(at(5) + wait, 1), Ok(()));
        assert_eq!(limit.try_take(at(100_000), 3), Err(Duration::MAX));
        assert_eq!(limit.try_take(at(100_000), 2), Ok(()));
        assert!(limit.try_take(at(100_000), 1).is_err());
        let mut extreme = bucket(u32::MAX, Duration::MAX, u32::MAX);
        assert!(extreme.try_take(Duration::MAX, u32::MAX).is_ok());
        assert!(extreme.try_take(Duration::ZERO, 1).is_err());
    }

    #[test]
    fn more_than_it_holds_is_owed_and_what_was_not_needed_comes_back() {
        let (mut limit, at) = (bucket(60, Duration::from_secs(60), 60), Duration::from_secs);
        let seen = |limit: &TokenBucket, second| (limit.available(at(second)), limit.full_after(at(second)));
        assert_eq!(limit.try_take_owing(at(0), 90), Ok(()));
        assert_eq!(seen(&limit, 0), (0, at(90)));
        assert_eq!(limit.try_take_owing(at(10), 1), Err(at(21)), "30 are owed, and 10 of these have come in");
        limit.give_back(70);
        assert_eq!(seen(&limit, 10), (50, at(10)));
        assert_eq!(
            limit.try_take_owing(at(10), 200),
            Err(at(10)),
            "only a full bucket gives what it does not hold"
        );
        limit.owe(at(10), 80);
        assert_eq!(seen(&limit, 10), (0, at(90)));
        assert_eq!(seen(&limit, 100), (60, at(0)));
        limit.give_back(1000);
        assert_eq!(seen(&limit, 100), (60, at(0)), "no more than the burst");
        limit.owe(Duration::MAX, u32::MAX);
        assert_eq!(limit.available(Duration::MAX), 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1000) })]

        /// In no window passes more than its share and one burst, and one who always asks gets all of its share.
        #[test]
        fn windows_are_bounded_and_the_allowance_is_given(
            tokens in 1..50u32,
            per_millis in 1..2000u64,
            burst in 1..20u32,
            steps in prop::collection::vec((0..300u64, 1..4u32), 1..200),
        ) {
            let per = Duration::from_millis(per_millis);
            let mut limit = bucket(tokens, per, burst);
            let mut now = Duration::ZERO;
            let mut passed = Vec::new();
            for (gap, n) in steps {
                now += Duration::from_millis(gap);
                match limit.try_take(now, n) {
                    Ok(()) => passed.push((now, n)),
                    Err(wait) if n <= burst => prop_assert_eq!(limit.clone().try_take(now + wait, n), Ok(())),
                    Err(wait) => prop_assert_eq!(wait, Duration::MAX),
                }
            }
            for (first, (start, _)) in passed.iter().enumerate() {
                let mut sum = 0;
                for (end, n) in &passed[first..] {
                    sum += n;
                    let share = (*end - *start).as_nanos() * u128::from(tokens) / per.as_nanos();
                    prop_assert!(u128::from(sum) <= share + u128::from(burst), "{sum} from {start:?} to {end:?}");
                }
            }
            let (mut eager, mut count) = (bucket(tokens, per, 1), 0);
            let end = per * 20;
            let mut now = Duration::ZERO;
            while now <= end {
                match eager.try_take(now, 1) {
                    Ok(()) => count += 1,
                    Err(wait) => now += wait,
                }
            }
            prop_assert!(count >= tokens * 20, "{count} of {}", tokens * 20);
        }
    }
}
