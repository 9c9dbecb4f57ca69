//! The quantisers do what their definition says, to the bit.

use proptest::prelude::*;

use super::*;

fn scheme() -> impl Strategy<Value = Scheme> {
    let bits = prop::sample::select(vec![Bits::Four, Bits::Eight]);
    let group = prop::sample::select(vec![None, Some(16), Some(32), Some(128)]);
    (bits, group).prop_map(|(bits, group)| Scheme { bits, group })
}

proptest! {
    #[test]
    fn rows_are_quantised_as_defined(
        scheme in scheme(),
        columns in 1usize..300,
        weights in prop::collection::vec(-3.0f32..3.0, 300),
    ) {
        let weights = &weights[..columns];
        let quantised = Quantised::from_f32(scheme, weights, columns);
        quantised.assert_shape();
        let limit = if scheme.bits == Bits::Four { 7.0 } else { 127.0 };
        let group = scheme.group.unwrap_or(columns).min(columns);
        for (number, weights) in weights.chunks(group).enumerate() {
            let scale = weights.iter().map(|w| w.abs()).fold(0.0, f32::max) / limit;
            prop_assert_eq!(quantised.scales[number], scale);
            for (i, weight) in weights.iter().enumerate() {
                let q = (weight / scale).round_ties_even().clamp(-limit, limit);
                prop_assert_eq!(f32::from(quantised.q[number * group + i]), q);
                prop_assert_eq!(quantised.dequantise()[number * group + i], q * scale);
            }
        }
    }
}

#[test]
fn zeros_ties_and_what_is_not_a_number() {
    let check = |weights: &[f32], q: &[i8], scale: f32| {
        let quantised = Quantised::from_f32(Scheme::INT8, weights, weights.len());
        assert_eq!((quantised.q.as_slice(), quantised.scales.as_slice()), (q, [scale].as_slice()));
    };
    check(&[0.0, -0.0], &[0, 0], 0.0);
    check(&[127.0, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5], &[127, 0, 2, 2, 0, -2, -2], 1.0);
    check(&[f32::NAN, 254.0, -254.0], &[0, 127, -127], 2.0);
    let infinite = Quantised::from_f32(Scheme::INT8, &[f32::INFINITY, 1.0], 2);
    assert_eq!((infinite.q, infinite.scales), (vec![0, 0], vec![f32::INFINITY]));
}

#[test]
fn offsets_are_added_after_the_product() {
    let quantised = Quantised {
        rows: 2,
        columns: 17,
        bits: Bits::Four,
        group: 16,
        q: (0..34).map(|i| i % 16).collect(),
        scales: vec![0.5, 2.0, 0.25, 1.0],
        offsets: Some(vec![1.0, -3.0, 0.0, 0.125]),
    };
    quantised.assert_shape();
    let weights = quantised.dequantise();
    assert_eq!((weights[0], weights[15], weights[16]), (1.0, 8.5, -3.0));
    assert_eq!((weights[17], weights[32], weights[33]), (0.25, 0.0, 1.125));
}

#[test]
fn unsound_shapes_are_refused() {
    let sound = Quantised::from_f32(Scheme::INT4, &[0.5; 2 * 64], 64);
    sound.assert_shape();
    let unsound = [
        Quantised { group: 24, ..sound.clone() },
        Quantised { scales: vec![0.0; 3], ..sound.clone() },
        Quantised { offsets: Some(vec![]), ..sound.clone() },
        Quantised { q: vec![8; 128], ..sound.clone() },
        Quantised { rows: 3, ..sound },
    ];
    for quantised in unsound {
        assert!(std::panic::catch_unwind(|| quantised.assert_shape()).is_err());
    }
}

#[test]
fn names() {
    let check = |scheme: Scheme, name: &str| assert_eq!(scheme.to_string(), name);
    check(Scheme::INT8, "int8");
    check(Scheme::INT4, "int4");
    check(Scheme::INT4_G128, "int4-g128");
    check(Scheme { bits: Bits::Eight, group: Some(32) }, "int8-g32");
    check(Scheme { bits: Bits::Four, group: None }, "int4-channel");
}
