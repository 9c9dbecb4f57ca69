//! The passes against plain formulas, and bit for bit between instruction sets.

use proptest::prelude::*;

use super::*;

/// What one instruction set makes of a row, as bits.
#[derive(Debug, PartialEq)]
struct Found {
    maxima: Vec<u32>,
    weights: Vec<u32>,
    sums: Vec<u64>,
    inside: Vec<u32>,
    above: u64,
    kept: (Vec<u32>, Vec<u64>),
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

fn bits_of_sums(values: &[f64]) -> Vec<u64> {
    values.iter().map(|value| value.to_bits()).collect()
}

fn top(maxima: &[f32]) -> f32 {
    maxima.iter().copied().fold(f32::NEG_INFINITY, f32::max)
}

fn find(isa: Isa, row: &[f32], temperature: f32, (span, least): (Span, f32)) -> Found {
    let scan = Scan::new(isa);
    // What stood there before is of no meaning.
    let (mut maxima, mut inside) = (vec![f32::MAX; 3], vec![f32::MAX; 3]);
    let (mut weights, mut sums) = (vec![f32::MAX; 3], vec![f64::MAX; 3]);
    scan.maxima(row, &mut maxima);
    scan.weigh(row, Softmax::new(temperature, top(&maxima)), (&mut weights, &mut sums));
    let (count, above) = scan.split(row, &weights, span, &mut inside);
    let (mut kept, mut kept_sums) = (weights.clone(), sums.clone());
    scan.keep(row, (span.0, least), &mut kept, &mut kept_sums);
    Found {
        maxima: bits(&maxima),
        weights: bits(&weights),
        sums: bits_of_sums(&sums),
        inside: bits(&inside[..count]),
        above: above.to_bits(),
        kept: (bits(&kept), bits_of_sums(&kept_sums)),
    }
}

fn logit() -> impl Strategy<Value = f32> {
    prop_oneof![
        12 => -30f32..30.0,
        4 => (-8i32..8).prop_map(|x| x as f32),
        1 => Just(f32::NEG_INFINITY),
        1 => Just(f32::NAN),
    ]
}

fn rows() -> impl Strategy<Value = Vec<f32>> {
    let infinite = prop_oneof![6 => logit(), 1 => Just(f32::INFINITY), 1 => Just(f32::MAX)];
    prop_oneof![4 => prop::collection::vec(logit(), 0..700), 1 => prop::collection::vec(infinite, 0..300)]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn every_instruction_set_finds_the_same_bits(
        row in rows(),
        temperature in prop_oneof![Just(1.0f32), 0.1f32..3.0],
        span in (-30f32..30.0, prop::option::of(-30f32..30.0)),
        least in 0f32..1.0,
    ) {
        let plain = find(Isa::Scalar, &row, temperature, (span, least));
        for isa in Isa::available() {
            prop_assert_eq!(&find(isa, &row, temperature, (span, least)), &plain, "{}", isa);
        }
    }

    #[test]
    fn passes_follow_their_formulas(
        row in rows(),
        temperature in prop_oneof![Just(1.0f32), 0.1f32..3.0],
        span in (-30f32..30.0, prop::option::of(-30f32..30.0)),
    ) {
        let scan = Scan::default();
        let (mut maxima, mut weights, mut sums, mut inside) = (vec![], vec![], vec![], vec![]);
        scan.maxima(&row, &mut maxima);
        prop_assert_eq!(maxima.len(), row.len().div_ceil(BLOCK));
        for (found, block) in maxima.iter().zip(row.chunks(BLOCK)) {
            prop_assert_eq!(*found, top(block));
        }
        let softmax = Softmax::new(temperature, top(&maxima));
        scan.weigh(&row, softmax, (&mut weights, &mut sums));
        let best = softmax.score(top(&maxima));
        for (&logit, &weight) in row.iter().zip(&weights) {
            let is_number = logit > f32::NEG_INFINITY;
            let expected = if is_number { f64::from(softmax.score(logit) - best).exp() } else { 0.0 };
            // What weighs less than this weighs nothing.
            let tolerance = expected * 3e-7 + 1.7e-38;
            prop_assert!((f64::from(weight) - expected).abs() <= tolerance, "{} weighs {}, not {}", logit, weight, expected);
        }
        for (sum, block) in sums.iter().zip(weights.chunks(BLOCK)) {
            let expected: f64 = block.iter().copied().map(f64::from).sum();
            prop_assert!((sum - expected).abs() <= expected * 1e-6);
        }
        let (count, above) = scan.split(&row, &weights, span, &mut inside);
        let (low, high) = span;
        let within: Vec<f32> = row.iter().copied().filter(|&x| x >= low && high.is_none_or(|high| x < high)).collect();
        prop_assert_eq!(&inside[..count], &within[..]);
        let reaching = row.iter().zip(&weights).filter(|(x, _)| high.is_some_and(|high| **x >= high));
        let expected: f64 = reaching.map(|(_, &weight)| f64::from(weight)).sum();
        prop_assert!((above - expected).abs() <= expected * 1e-6);
    }

    #[test]
    fn the_first_logit_that_reaches_a_score_is_the_first(
        logit in prop_oneof![-50f32..50.0, any::<f32>()],
        temperature in prop_oneof![Just(1.0f32), 0.01f32..100.0, Just(1e-30f32), Just(1e30)],
    ) {
        let softmax = Softmax::new(temperature, 0.0);
        let score = softmax.score(logit);
        if score == f32::NEG_INFINITY {
            return Ok(());
        }
        let first = softmax.first_reaching(score).unwrap();
        prop_assert!(softmax.score(first) >= score && first <= logit);
        if first > f32::MIN {
            prop_assert!(softmax.score(first.next_down()) < score, "{} is not the first", first);
        }
    }
}

#[test]
fn weights_are_close_to_the_library_over_their_range() {
    let row: Vec<f32> = (0..870_000).map(|step| -(step as f32) * 1e-4).collect();
    for isa in Isa::available() {
        let (mut weights, mut sums) = (vec![], vec![]);
        Scan::new(isa).weigh(&row, Softmax::new(1.0, 0.0), (&mut weights, &mut sums));
        for (&x, &weight) in row.iter().zip(&weights) {
            let (ours, theirs) = (f64::from(weight), f64::from(x).exp());
            assert!((ours - theirs).abs() <= theirs * 2e-7, "e^{x}: {ours} against {theirs}");
        }
        let ends = [0.0, f32::NAN, f32::NEG_INFINITY, f32::MIN, -87.0];
        Scan::new(isa).weigh(&ends, Softmax::new(1.0, 0.0), (&mut weights, &mut sums));
        assert_eq!(weights, [1.0, 0.0, 0.0, 0.0, 0.0]);
    }
}

#[test]
fn scores_that_are_too_large_stay_numbers() {
    let hot = Softmax::new(1e-30, 1.0);
    assert_eq!([1e20, f32::INFINITY, -1e20].map(|x| hot.score(x)), [f32::MAX, f32::MAX, f32::MIN]);
    assert_eq!([f32::NAN, f32::NEG_INFINITY].map(|x| hot.score(x)), [f32::NEG_INFINITY; 2]);
    let (mut weights, mut sums) = (vec![], vec![]);
    let row = [f32::INFINITY, f32::NAN, 1.0, f32::NEG_INFINITY];
    Scan::default().weigh(&row, Softmax::new(1.0, f32::INFINITY), (&mut weights, &mut sums));
    assert_eq!((weights, sums), (vec![1.0, 0.0, 0.0, 0.0], vec![1.0]));
    assert_eq!(Softmax::new(1.0, 0.0).first_reaching(f32::INFINITY), None);
    assert_eq!(hot.first_reaching(f32::MAX.next_up()), None);
}
