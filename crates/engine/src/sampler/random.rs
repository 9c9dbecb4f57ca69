//! Random numbers by position instead of by sequence, so that a draw depends on where a token stands and on nothing
//! that happened before.

/// A number in `[0, 1)` with 53 random bits for token `position` of continuation `choice` under `seed`.
///
/// Three rounds of the SplitMix64 finaliser (Steele, Lea and Flood, "Fast splittable pseudorandom number generators",
/// 2014; constants of S. Vigna's public-domain `splitmix64.c`), each absorbing one of the three numbers.
pub fn uniform(seed: u64, choice: u32, position: u64) -> f64 {
    let bits = mix(mix(mix(seed) ^ u64::from(choice)) ^ position);
    (bits >> 11) as f64 * (-53f64).exp2()
}

pub(crate) fn mix(state: u64) -> u64 {
    let mut z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mix_is_splitmix64() {
        // First output of the published generator with state 1234567.
        assert_eq!(mix(1_234_567), 6_457_827_717_110_365_317);
    }

    #[test]
    fn draws_fill_the_unit_interval_evenly_along_each_number() {
        let along: [fn(u64) -> f64; 3] =
            [|i| uniform(i, 0, 0), |i| uniform(7, i as u32, 3), |i| uniform(7, 1, i)];
        for draw in along {
            let mut bins = [0u32; 16];
            for i in 0..16_000 {
                let u = draw(i);
                assert!((0.0..1.0).contains(&u));
                bins[(u * 16.0) as usize] += 1;
            }
            // 1000 expected in each; 5 standard deviations are 155.
            assert!(bins.iter().all(|&n| (845..=1155).contains(&n)), "{bins:?}");
        }
    }
}
