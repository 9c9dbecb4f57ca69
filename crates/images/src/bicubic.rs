//! Bicubic resizing with antialiasing, in the fixed point of the reference.
//!
//! The reference (torchvision on bytes, after Pillow) rounds each weight to 16 bits, sums whole numbers, and rounds to a
//! byte after the horizontal pass and again after the vertical one. Sums of whole numbers are exact in any order, so
//! doing the same gives the very same bytes.

use std::iter;

use pulp::Arch;

use crate::grid::Size;
use crate::picture::Picture;

/// Sharpness of the cubic, as in Pillow.
const A: f64 = -0.5;

/// Which inputs make each output along one axis, and how much each weighs.
pub(crate) struct Taps {
    /// The first input of each output.
    starts: Vec<usize>,
    /// `most` weights for each output; those past its own are 0.
    weights: Vec<i16>,
    /// Weights for each output.
    most: usize,
    /// How many of them are its own.
    lengths: Vec<usize>,
    /// Bits of a weight behind the point.
    precision: u32,
}

impl Taps {
    /// The taps that make `outputs` samples of `inputs`.
    pub(crate) fn new(inputs: usize, outputs: usize) -> Self {
        let scale = inputs as f64 / outputs as f64;
        let stretch = scale.max(1.0);
        let support = 2.0 * stretch;
        let most = support.ceil() as usize * 2 + 1;
        let mut real = Vec::with_capacity(outputs * most);
        let (mut starts, mut lengths) = (Vec::with_capacity(outputs), Vec::with_capacity(outputs));
        for output in 0..outputs {
            let centre = scale * (output as f64 + 0.5);
            // A conversion to `usize` cuts towards zero and keeps negative numbers at 0, which is what is meant.
            let start = (centre - support + 0.5) as usize;
            let end = ((centre + support + 0.5) as usize).min(inputs);
            let length = end.saturating_sub(start).min(most);
            let weigh = |tap: usize| cubic(((tap + start) as f64 - centre + 0.5) * (1.0 / stretch));
            let total: f64 = (0..length).map(weigh).sum();
            real.extend((0..length).map(|tap| weigh(tap) / total));
            real.extend(iter::repeat_n(0.0, most - length));
            starts.push(start);
            lengths.push(length);
        }
        let precision = precision(real.iter().copied().fold(0.0, f64::max));
        let one = f64::from(1 << precision);
        let weights = real.iter().map(|weight| (weight * one).round() as i16).collect();
        Self { starts, weights, most, lengths, precision }
    }

    fn of(&self, output: usize) -> (usize, &[i16]) {
        let weights = &self.weights[output * self.most..][..self.lengths[output]];
        (self.starts[output], weights)
    }
}

/// As many bits as let the largest weight fit into 16 with its sign.
fn precision(largest: f64) -> u32 {
    (0..22).find(|bits| (0.5 + largest * f64::from(1 << (bits + 1))) as i64 >= 1 << 15).unwrap_or(22)
}

fn cubic(x: f64) -> f64 {
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

/// Stretches or shrinks every row of a picture to `width` pixels.
pub(crate) fn across(picture: Picture, width: usize) -> Picture {
    let Size { width: from, height } = picture.size;
    if from == width {
        return picture;
    }
    let taps = Taps::new(from, width);
    let mut rgb = vec![0; width * height * 3];
    // Pixels are read four bytes at a time, so that channels share a register; the last one needs a byte behind it.
    let mut padded = vec![0; from * 3 + 1];
    Arch::new().dispatch(|| {
        for (row, out) in picture.rgb.chunks_exact(from * 3).zip(rgb.chunks_exact_mut(width * 3)) {
            padded[..from * 3].copy_from_slice(row);
            across_row(&padded, &taps, out);
        }
    });
    Picture { size: Size { width, height }, rgb }
}

#[inline(always)]
fn across_row(padded: &[u8], taps: &Taps, out: &mut [u8]) {
    let half = 1 << (taps.precision - 1);
    for (output, pixel) in out.as_chunks_mut::<3>().0.iter_mut().enumerate() {
        let (start, weights) = taps.of(output);
        let inputs = padded[start * 3..][..weights.len() * 3 + 1].array_windows::<4>().step_by(3);
        let mut sums = [half; 4];
        for (weight, input) in weights.iter().zip(inputs) {
            for (sum, value) in sums.iter_mut().zip(input) {
                *sum += i32::from(*weight) * i32::from(*value);
            }
        }
        for (value, sum) in pixel.iter_mut().zip(sums) {
            *value = byte(sum, taps.precision);
        }
    }
}

/// Values that are summed at once: as many sums as registers hold.
const BLOCK: usize = 32;

/// Row `output` of a picture that is resized along its height.
#[inline(always)]
pub(crate) fn down_row(picture: &Picture, taps: &Taps, output: usize, out: &mut [u8]) {
    let (start, weights) = taps.of(output);
    let width = picture.size.width * 3;
    let rows = &picture.rgb[start * width..][..weights.len() * width];
    let (blocks, rest) = out.as_chunks_mut::<BLOCK>();
    let begun = blocks.len() * BLOCK;
    for (number, block) in blocks.iter_mut().enumerate() {
        let mut sums = [1 << (taps.precision - 1); BLOCK];
        for (weight, row) in weights.iter().zip(rows.chunks_exact(width)) {
            let values = &row[number * BLOCK..][..BLOCK];
            for (sum, value) in sums.iter_mut().zip(values) {
                *sum += i32::from(*weight) * i32::from(*value);
            }
        }
        for (value, sum) in block.iter_mut().zip(sums) {
            *value = byte(sum, taps.precision);
        }
    }
    for (place, value) in rest.iter_mut().enumerate() {
        let inputs = rows.iter().skip(begun + place).step_by(width);
        let products =
            weights.iter().zip(inputs).map(|(weight, input)| i32::from(*weight) * i32::from(*input));
        *value = byte((1 << (taps.precision - 1)) + products.sum::<i32>(), taps.precision);
    }
}

#[inline(always)]
fn byte(sum: i32, precision: u32) -> u8 {
    (sum >> precision).clamp(0, 255) as u8
}
