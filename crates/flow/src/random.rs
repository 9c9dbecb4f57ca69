//! Random numbers that one seed repeats.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

/// A stream of random numbers: the generator splitmix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number
/// generators", 2014). The same seed gives the same numbers on every machine, which makes jitter repeatable in a test.
/// It is not for secrets.
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
}

impl Random {
    /// The stream of that seed.
    pub fn seeded(seed: u64) -> Self {
        Self { state: seed }
    }

    /// A stream that differs from run to run.
    pub fn unpredictable() -> Self {
        Self::seeded(RandomState::new().build_hasher().finish())
    }

    /// The next 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from 0 to `end - 1`; 0 if `end` is 0. Uniform up to a bias of `end` / 2^64.
    pub fn below(&mut self, end: u64) -> u64 {
        let product = u128::from(self.bits()) * u128::from(end);
        (product >> 64) as u64
    }

    /// A number from 0 to just under 1, in steps of 2^-53.
    pub fn fraction(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A time from zero to `longest`, both included, to the nanosecond; no longer than 584 years.
    pub fn up_to(&mut self, longest: Duration) -> Duration {
        let nanos = u64::try_from(longest.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(self.below(nanos.saturating_add(1)))
    }

    /// Another stream, whose numbers have nothing to do with the ones that follow here.
    pub fn fork(&mut self) -> Self {
        Self::seeded(self.bits())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_is_the_published_one_and_its_numbers_stay_in_range() {
        let mut random = Random::seeded(1_234_567);
        let first: Vec<u64> = (0..3).map(|_| random.bits()).collect();
        assert_eq!(first, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
        let mut sum = 0.0;
        for _ in 0..10_000 {
            assert!(random.below(7) < 7);
            let fraction = random.fraction();
            assert!((0.0..1.0).contains(&fraction));
            sum += fraction;
            assert!(random.up_to(Duration::from_nanos(3)) <= Duration::from_nanos(3));
        }
        assert!((sum / 10_000.0 - 0.5).abs() < 0.02, "{sum}");
        assert_eq!(random.below(0), 0);
        assert_eq!(random.up_to(Duration::ZERO), Duration::ZERO);
        let (mut one, mut other) = (Random::unpredictable(), Random::unpredictable());
        assert_ne!(one.bits(), other.bits());
        assert_ne!(one.fork().bits(), one.bits());
    }
}
