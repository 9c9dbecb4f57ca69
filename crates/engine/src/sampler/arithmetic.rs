//! Reductions over a row of logits, written so that the compiler vectorises them and their order of additions is fixed.

const LANES: usize = 16;

/// The index of the largest element, the lowest one on ties; `None` if nothing is above minus infinity. NaN is
/// never chosen.
pub fn argmax(row: &[f32]) -> Option<u32> {
    const BLOCK: usize = 1024;
    let mut best = (f32::NEG_INFINITY, 0);
    for (index, block) in row.chunks(BLOCK).enumerate() {
        let top = largest(block);
        if top > best.0 {
            best = (top, index * BLOCK);
        }
    }
    let start = best.1;
    let block = &row[start..row.len().min(start + BLOCK)];
    (best.0 > f32::NEG_INFINITY)
        .then(|| block.iter().position(|&x| x == best.0))
        .flatten()
        .map(|at| (start + at) as u32)
}

/// The largest element that is a number; minus infinity if there is none.
pub(super) fn largest(row: &[f32]) -> f32 {
    let pick = |a: f32, b: f32| if b > a { b } else { a };
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = row.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane = pick(*lane, x);
        }
    }
    lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |a, &b| pick(a, b))
}

/// Natural logarithm of the sum of exponentials. Minus infinity if no element is above it.
pub fn log_sum_exp(row: &[f32]) -> f64 {
    let top = largest(row);
    if top == f32::NEG_INFINITY {
        return f64::NEG_INFINITY;
    }
    let mut lanes = [0.0; LANES];
    let (chunks, rest) = row.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane += f64::from(exp(x - top));
        }
    }
    let tail: f64 = rest.iter().map(|&x| f64::from(exp(x - top))).sum();
    f64::from(top) + (lanes.iter().sum::<f64>() + tail).ln()
}

/// Sum in `f64`, in a fixed order.
pub(super) fn total(weights: &[f32]) -> f64 {
    let mut lanes = [0.0; LANES];
    let (chunks, rest) = weights.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane += f64::from(x);
        }
    }
    lanes.iter().sum::<f64>() + rest.iter().map(|&x| f64::from(x)).sum::<f64>()
}

/// `e^x` for `x ≤ 0`, without a branch or a call so that loops over it vectorise; NaN and everything below −87 give 0.
/// Relative error below 2e-7. Method and coefficients: Cephes `expf` (S. Moshier).
pub(super) fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0;
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * 0.693_359_4 + n * 2.121_944_4e-4;
    let mut p = 1.987_569_1e-4;
    for coefficient in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = p * r + coefficient;
    }
    let p = p * r * r + r + 1.0;
    // The low bits of `shifted` are the integer n; added to the exponent field they multiply by 2^n.
    let scaled = f32::from_bits(p.to_bits().wrapping_add(shifted.to_bits() << 23));
    if x > -87.0 { scaled } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_close_to_the_library_over_its_range() {
        for step in 0..870_000 {
            let x = -(step as f32) * 1e-4;
            let (ours, theirs) = (f64::from(exp(x)), f64::from(x).exp());
            assert!((ours - theirs).abs() <= theirs * 2e-7, "e^{x}: {ours} against {theirs}");
        }
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(f32::NAN), 0.0);
        assert_eq!(exp(0.0), 1.0);
    }

    #[test]
    fn argmax_takes_the_lowest_of_ties_and_never_nan() {
        let mut row = vec![0.5; 5000];
        assert_eq!(argmax(&row), Some(0));
        row[4321] = 0.75;
        row[4999] = 0.75;
        row[17] = f32::NAN;
        assert_eq!(argmax(&row), Some(4321));
        assert_eq!(argmax(&[f32::NAN, f32::NEG_INFINITY]), None);
        assert_eq!(argmax(&[]), None);
    }
}
