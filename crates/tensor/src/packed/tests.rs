//! Packing and unpacking give the stored matrices back.

use proptest::prelude::*;

use super::*;
use crate::Bits;

fn numbered(count: usize) -> Vec<f32> {
    (0..count).map(|i| (i as f32 - 100.0) * 0.37).collect()
}

fn unpacked(layer: &Linear) -> Vec<f32> {
    let mut all = vec![0.0; layer.outputs() * layer.inputs()];
    for (output, row) in all.chunks_mut(layer.inputs()).enumerate() {
        layer.row_into(output, row);
    }
    all
}

fn rounded(values: &[f32], dtype: Dtype) -> Vec<f32> {
    let round = |&v: &f32| if dtype == Dtype::Bf16 { bf16::from_f32(v).to_f32() } else { v };
    values.iter().map(round).collect()
}

proptest! {
    #[test]
    fn rows_and_columns_are_read_back(inputs in 1usize..70, first in 0usize..70, second in 1usize..70, wide: bool) {
        let dtype = if wide { Dtype::F32 } else { Dtype::Bf16 };
        let outputs = first + second;
        let values = numbered(inputs * outputs);
        let (top, rest) = values.split_at(first * inputs);
        let mut by_rows = Packer::new(inputs, outputs, dtype).unwrap();
        by_rows.rows(0, &TensorView::from_f32(&[first, inputs], top));
        by_rows.rows(first, &TensorView::from_f32(&[second, inputs], rest));
        prop_assert_eq!(unpacked(&by_rows.finish()), rounded(&values, dtype));

        let transposed: Vec<f32> =
            (0..inputs).flat_map(|k| (0..second).map(move |o| (o, k))).map(|(o, k)| rest[o * inputs + k]).collect();
        let mut by_columns = Packer::new(inputs, outputs, dtype).unwrap();
        by_columns.columns(first, &TensorView::from_f32(&[inputs, second], &transposed));
        let expected = [vec![0.0; top.len()], rounded(rest, dtype)].concat();
        prop_assert_eq!(unpacked(&by_columns.finish()), expected);
    }
}

#[test]
fn bias_is_zero_until_set_and_padded_to_the_panel() {
    let mut packer = Packer::new(3, 70, Dtype::F32).unwrap();
    packer.bias(66, &TensorView::from_f32(&[4], &[1.0, 2.0, 3.0, 4.0]));
    let layer = packer.finish();
    assert_eq!((layer.bias(65), layer.bias(66), layer.bias(69)), (0.0, 1.0, 4.0));
    let bias = layer.panel_bias(1).unwrap();
    assert_eq!((bias.len(), bias[2], bias[6]), (PANEL, 1.0, 0.0));
    assert_eq!(layer.bytes(), (2 * PANEL * 3 + 2 * PANEL) * 4);
    assert!(Packer::new(3, 70, Dtype::Bf16).unwrap().finish().panel_bias(0).is_none());
}

#[test]
#[should_panic(expected = "do not fit a layer of 3 inputs and 4 outputs")]
fn a_matrix_that_does_not_fit_is_refused() {
    let stored = TensorView::from_f32(&[3, 3], &[0.0; 9]);
    Packer::new(3, 4, Dtype::F32).unwrap().rows(2, &stored);
}

proptest! {
    #[test]
    fn quantised_rows_and_columns_are_read_back(
        inputs in 1usize..150, first in 1usize..70, second in 1usize..70, four: bool, group in 0usize..3,
    ) {
        let bits = if four { Bits::Four } else { Bits::Eight };
        let scheme = Scheme { bits, group: [None, Some(16), Some(32)][group] };
        let values = numbered(inputs * (first + second));
        let (top, rest) = values.split_at(first * inputs);
        let transposed: Vec<f32> =
            (0..inputs).flat_map(|k| (0..second).map(move |o| (o, k))).map(|(o, k)| rest[o * inputs + k]).collect();
        let mut packer = Packer::quantising((inputs, first + second), scheme, Dtype::F32).unwrap();
        packer.rows(0, &TensorView::from_f32(&[first, inputs], top));
        packer.columns(first, &TensorView::from_f32(&[inputs, second], &transposed));
        let layer = packer.finish();
        let matrix = Quantised::from_f32(scheme, &values, inputs);
        prop_assert_eq!(unpacked(&layer), matrix.dequantise());
        let mut other = Packer::of_quantised(first + second, &matrix, Dtype::Bf16).unwrap();
        other.quantised(0, &matrix);
        prop_assert_eq!(unpacked(&other.finish()), matrix.dequantise());
    }
}

#[test]
fn quantised_layers_take_the_bytes_that_their_scheme_says() {
    let check = |scheme: Scheme, bits_a_weight: usize| {
        let layer = Packer::quantising((1024, 128), scheme, Dtype::Bf16).unwrap().finish();
        assert_eq!(layer.scheme(), Some(scheme));
        assert_eq!(layer.bytes() * 8, 1024 * 128 * bits_a_weight / 32, "{scheme}");
    };
    check(Scheme::INT8, 32 * 8 + 1);
    check(Scheme::INT4, 32 * 4 + 32);
    check(Scheme::INT4_G128, 32 * 4 + 8);
}

#[test]
#[should_panic(expected = "the grouping of the layer")]
fn a_matrix_of_other_groups_is_refused() {
    let [matrix, other] = [Some(16), Some(32)]
        .map(|group| Quantised::from_f32(Scheme { bits: Bits::Eight, group }, &[1.0; 64], 64));
    Packer::of_quantised(2, &matrix, Dtype::F32).unwrap().quantised(0, &other);
}
