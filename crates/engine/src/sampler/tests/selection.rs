//! What the filters leave and what is drawn of it, against full sorts in `f64`, on every instruction set.

use proptest::prelude::*;
use tensor::Isa;
use tensor::scan::Scan;

use super::*;

/// How far sums of many `f32` may be from the same sums in `f64`, as a share.
const ROUNDING: f64 = 2e-6;

/// A token with its score and how much it weighs beside the best.
#[derive(Clone, Copy, Debug)]
struct Ranked {
    id: u32,
    score: f32,
    weight: f64,
}

/// All tokens above minus infinity that top-k keeps, the most probable first and the lowest id first among equals.
fn ranked(logits: &[f32], settings: &Settings) -> Vec<Ranked> {
    let score = |logit: f32| (logit / settings.temperature).clamp(f32::MIN, f32::MAX);
    let scored = logits.iter().zip(0..).filter(|(logit, _)| **logit > f32::NEG_INFINITY);
    let mut all: Vec<Ranked> =
        scored.map(|(&logit, id)| Ranked { id, score: score(logit), weight: 0.0 }).collect();
    all.sort_by(|a, b| b.score.partial_cmp(&a.score).unwrap().then(a.id.cmp(&b.id)));
    let k = settings.top_k as usize;
    if k > 0 && k < all.len() {
        let last = all[k - 1].score;
        all.retain(|token| token.score >= last);
    }
    let top = all.first().map_or(0.0, |token| token.score);
    all.iter_mut().for_each(|token| token.weight = f64::from(token.score - top).exp());
    all
}

/// How many of the ranked tokens stay at least and at most, since sums may be rounded.
fn bounds(ranked: &[Ranked], settings: &Settings) -> (usize, usize) {
    let total: f64 = ranked.iter().map(|token| token.weight).sum();
    let count = |slack: f64| {
        let budget = if settings.top_p < 1.0 { f64::from(settings.top_p) * total } else { f64::INFINITY };
        let least = f64::from(settings.min_p);
        let mut before = 0.0;
        let stay = ranked.iter().enumerate().take_while(|(rank, token)| {
            let stays = before < budget * (1.0 + slack) && token.weight * (1.0 + slack) >= least;
            before += token.weight;
            stays || *rank == 0
        });
        stay.count()
    };
    let by_weight = settings.top_p < 1.0 || settings.min_p > 0.0;
    // Where weights are looked at, what is lighter than e^-87 is out, which is some 1.65e-38.
    let heavier = |than: f64| ranked.iter().filter(|token| !by_weight || token.weight > than).count();
    (count(-ROUNDING).min(heavier(1.7e-38)), count(ROUNDING).min(heavier(1.6e-38)))
}

/// Panics unless the candidates are the first of the ranked tokens, and every draw lands where its share of the mass does.
fn check(logits: &[f32], settings: &Settings, draws: &[f64]) {
    let ranked = ranked(logits, settings);
    let (least, most) = bounds(&ranked, settings);
    let mut candidates = Candidates::default();
    candidates.gather(logits, settings);
    let found = candidates.ids().len();
    let what = format!("{} logits, {settings:?}", logits.len());
    assert!((least..=most).contains(&found), "{what}: {found} stay, not {least} to {most}");
    let mut left = ranked[..found].to_vec();
    left.sort_unstable_by_key(|token| token.id);
    let expected: Vec<u32> = left.iter().map(|token| token.id).collect();
    assert!(candidates.ids() == expected, "{what}: not the first {found}");
    let scores: Vec<f32> = left.iter().map(|token| token.score).collect();
    assert_eq!(candidates.scores(), scores, "{what}");
    let total: f64 = left.iter().map(|token| token.weight).sum();
    for &u in draws {
        let Some(token) = candidates.choose(logits, settings, u) else {
            assert!(ranked.is_empty(), "{what}: nothing drawn");
            continue;
        };
        let place = expected.binary_search(&token).unwrap_or_else(|_| panic!("{what}: {token} was out"));
        let before: f64 = left[..place].iter().map(|token| token.weight).sum();
        let share = (before / total, (before + left[place].weight) / total);
        assert!(
            share.0 <= u + ROUNDING && share.1 >= u - ROUNDING,
            "{what}: {u} drew {token}, which has {share:?}"
        );
    }
    let best = candidates.best(logits);
    let top = logits.iter().zip(0..).filter(|(logit, _)| **logit > f32::NEG_INFINITY);
    let top = top.reduce(|best, next| if next.0 > best.0 { next } else { best });
    assert_eq!(best, top.map(|(_, id)| id), "{what}");
    for isa in Isa::available() {
        let mut others = Candidates::on(Scan::new(isa));
        others.gather(logits, settings);
        assert!(others.ids() == expected, "{what}: {isa} keeps others");
        for &u in draws {
            let chosen = others.choose(logits, settings, u);
            assert_eq!(chosen, candidates.choose(logits, settings, u), "{what}: {isa} at {u}");
        }
        assert_eq!(others.best(logits), best, "{what}: {isa}");
        assert_eq!(others.log_sum_exp(logits).to_bits(), candidates.log_sum_exp(logits).to_bits());
    }
}

/// Rows of many shapes, by number.
const SHAPES: usize = 14;

fn row(shape: usize, len: usize, seed: u64) -> Vec<f32> {
    let noise = |i: usize, salt: u32| uniform(seed, salt, i as u64) as f32;
    // A sum of uniform numbers is near enough to a bell.
    let bell = |i: usize| (0..6).map(|salt| noise(i, salt)).sum::<f32>() - 3.0;
    let logit = |i: usize| match shape {
        0 => bell(i),
        1 => 8.0 * bell(i),
        // Few tokens have nearly everything.
        2 => {
            if noise(i, 9) < 0.002 {
                20.0 + bell(i)
            } else {
                3.0 * bell(i)
            }
        }
        3 => 30.0 * noise(i, 0) * noise(i, 1) - 30.0,
        // Ties, many and fewer.
        4 => 0.25,
        5 => (3.0 * noise(i, 0)).floor(),
        6 => (20.0 * bell(i)).round() / 8.0,
        7 => {
            if noise(i, 0) < 0.5 {
                0.0
            } else {
                -0.0
            }
        }
        // Ruled out, and no numbers.
        8 => {
            if noise(i, 7) < 0.97 {
                f32::NEG_INFINITY
            } else {
                bell(i)
            }
        }
        9 => match (20.0 * noise(i, 7)) as u32 {
            0 => f32::NAN,
            1 => f32::NEG_INFINITY,
            _ => 2.0 * bell(i),
        },
        10 => {
            if noise(i, 7) < 0.001 {
                f32::INFINITY
            } else {
                bell(i)
            }
        }
        // In order, either way.
        11 => i as f32 * 12.0 / len as f32,
        12 => -(i as f32) * 200.0 / len as f32,
        // What a look at every so-manyth logit misses.
        _ => {
            if i.is_multiple_of(7) {
                -9.0
            } else {
                bell(i)
            }
        }
    };
    (0..len).map(logit).collect()
}

fn settings_of() -> impl Strategy<Value = Settings> {
    let shares = prop_oneof![
        4 => Just(1.0f32),
        6 => 0.0f32..1.0,
        3 => 0.9f32..1.0,
        1 => prop::sample::select(vec![0.0f32, 1e-30, 1e-9, 0.5, 0.999_999_94]),
    ];
    let counts = prop_oneof![3 => Just(0u32), 3 => 1u32..100, 2 => 1u32..9000, 1 => Just(u32::MAX)];
    let least = prop_oneof![3 => Just(0.0f32), 1 => 0.0f32..1.0, 1 => Just(1.0f32), 1 => 0.0f32..0.01];
    let temperature = prop_oneof![3 => Just(1.0f32), 4 => 0.1f32..3.0, 1 => prop::sample::select(vec![1e-30f32, 1e-3, 1e30])];
    (shares, counts, least, temperature).prop_map(|(top_p, top_k, min_p, temperature)| Settings {
        temperature,
        top_k,
        top_p,
        min_p,
        ..Settings::default()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn selection_and_draw_equal_full_sorts(
        (shape, seed) in (0..SHAPES, any::<u64>()),
        len in prop_oneof![3 => 0usize..300, 4 => 300usize..9000],
        settings in settings_of(),
        draws in prop::collection::vec(0.0f64..1.0, 3),
    ) {
        check(&row(shape, len, seed), &settings, &draws);
    }
}

/// Every shape at the size of a large vocabulary, where all rounds are needed.
#[test]
fn large_rows_equal_full_sorts() {
    let settings = |top_p, top_k, temperature| Settings { top_p, top_k, temperature, ..Settings::default() };
    for shape in 0..SHAPES {
        let row = row(shape, 40_013, shape as u64 + 1);
        let draws = [0.0, 0.3, 0.999_999_9];
        let ask =
            [settings(0.95, 0, 1.0), settings(0.1, 0, 0.7), settings(0.9999, 0, 1.6), settings(0.8, 50, 1.0)];
        ask.iter().for_each(|settings| check(&row, settings, &draws));
    }
}

#[test]
fn of_equals_the_first_ones_stay() {
    let row = vec![1.5; 5000];
    let mut candidates = Candidates::default();
    for (top_p, stay) in [(0.0, 1), (0.25, 1250), (0.5, 2500), (0.75, 3750), (1.0, 5000)] {
        candidates.gather(&row, &Settings { top_p, ..Settings::default() });
        assert!(candidates.ids().iter().copied().eq(0..stay), "{top_p}: {}", candidates.ids().len());
    }
    // All that tie with the last of the k best stay.
    candidates.gather(&row, &Settings { top_k: 7, ..Settings::default() });
    assert_eq!(candidates.ids().len(), 5000);
}

#[test]
fn the_best_is_the_lowest_of_ties_and_never_nan() {
    let mut row = vec![0.5; 5000];
    assert_eq!(argmax(&row), Some(0));
    row[4321] = 0.75;
    row[4999] = 0.75;
    row[17] = f32::NAN;
    assert_eq!(argmax(&row), Some(4321));
    assert_eq!(argmax(&[f32::NAN, f32::NEG_INFINITY]), None);
    assert_eq!(argmax(&[]), None);
}
