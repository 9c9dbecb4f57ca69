//! Which of several devices of a kind gets the next piece of work.

use crate::random::Random;

/// How work is spread over devices of a kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Balance {
    /// The device of which the least is reserved; among equals the one that got work least often. The ledger knows
    /// every load exactly, so nothing beats looking at all devices while they can be counted in tens.
    #[default]
    LeastReserved,
    /// The less reserved of two random devices (Mitzenmacher, "The power of two choices in randomized load balancing",
    /// 2001): nearly as even, and as fast for a thousand devices as for two.
    TwoChoices,
    /// The device of which the most is reserved: it keeps others whole for work that needs them whole.
    Packed,
}

/// A device on which the work fits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Candidate {
    /// Where it stands in the ledger.
    pub(super) place: usize,
    /// The largest of its reserved shares, 0 to 1.
    pub(super) load: f64,
    /// How often it got work.
    pub(super) grants: u64,
}

impl Balance {
    /// Takes a device out of `candidates`.
    pub(super) fn choose(self, candidates: &mut Vec<Candidate>, random: &mut Random) -> Option<usize> {
        let lighter = |a: &Candidate, b: &Candidate| a.load.total_cmp(&b.load).then(a.grants.cmp(&b.grants));
        let all = 0..candidates.len();
        let chosen = match self {
            Self::LeastReserved => all.min_by(|a, b| lighter(&candidates[*a], &candidates[*b])),
            Self::Packed => all.min_by(|a, b| candidates[*b].load.total_cmp(&candidates[*a].load)),
            Self::TwoChoices => {
                let any = |random: &mut Random| random.below(candidates.len() as u64) as usize;
                let (one, other) = (any(random), any(random));
                [one, other]
                    .into_iter()
                    .filter(|index| all.contains(index))
                    .min_by(|a, b| lighter(&candidates[*a], &candidates[*b]))
            }
        };
        chosen.map(|index| candidates.swap_remove(index).place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(loads: &[f64]) -> Vec<Candidate> {
        loads.iter().enumerate().map(|(place, load)| Candidate { place, load: *load, grants: 0 }).collect()
    }

    #[test]
    fn each_way_to_choose() {
        let check = |balance: Balance, loads: &[f64], expected: &[usize]| {
            let mut candidates = candidates(loads);
            let mut random = Random::seeded(1);
            let order: Vec<usize> =
                std::iter::from_fn(|| balance.choose(&mut candidates, &mut random)).collect();
            assert_eq!(order, expected, "{balance:?}");
        };
        check(Balance::LeastReserved, &[0.5, 0.1, 0.9], &[1, 0, 2]);
        check(Balance::Packed, &[0.5, 0.1, 0.9], &[2, 0, 1]);
        check(Balance::TwoChoices, &[0.5], &[0]);
        check(Balance::TwoChoices, &[], &[]);
    }

    #[test]
    fn two_choices_spread_nearly_evenly() {
        let mut random = Random::seeded(7);
        let mut loads = [0.0; 100];
        for _ in 0..10_000 {
            let mut offered = candidates(&loads);
            loads[Balance::TwoChoices.choose(&mut offered, &mut random).unwrap()] += 1.0;
        }
        // One random choice would give about 130; two give log log n above the mean.
        assert!(loads.iter().all(|load| *load <= 105.0), "{loads:?}");
    }
}
