//! Bicubic resizing with antialiasing, in the fixed point of the reference.
//!
//! The reference (torchvision on bytes, after Pillow) rounds each weight to 16 bits, sums whole numbers, and rounds to a
//! byte after the horizontal pass and again after the vertical one. Sums of whole numbers are exact in any order, so
//! doing the same gives the very same bytes.

use std::iter;

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
    for (row, out) in picture.rgb.chunks_exact(from * 3).zip(rgb.chunks_exact_mut(width * 3)) {
        across_row(row, &taps, out);
    }
    Picture { size: Size { width, height }, rgb }
}

fn across_row(row: &[u8], taps: &Taps, out: &mut [u8]) {
    let half = 1 << (taps.precision - 1);
    for (output, pixel) in out.as_chunks_mut::<3>().0.iter_mut().enumerate() {
        let (start, weights) = taps.of(output);
        let inputs = row[start * 3..].as_chunks::<3>().0;
        let mut sums = [half; 3];
        for (weight, input) in weights.iter().zip(inputs) {
            for (sum, value) in sums.iter_mut().zip(input) {
                *sum += i32::from(*weight) * i32::from(*value);
            }
        }
        *pixel = sums.map(|sum| byte(sum, taps.precision));
    }
}

/// Row `output` of a picture that is resized along its height, into `out`; `sums` is room for as many numbers.
pub(crate) fn down_row(picture: &Picture, taps: &Taps, output: usize, sums: &mut [i32], out: &mut [u8]) {
    let (start, weights) = taps.of(output);
    let width = picture.size.width * 3;
    sums.fill(1 << (taps.precision - 1));
    for (weight, row) in weights.iter().zip(picture.rgb[start * width..].chunks_exact(width)) {
        for (sum, value) in sums.iter_mut().zip(row) {
            *sum += i32::from(*weight) * i32::from(*value);
        }
    }
    for (value, sum) in out.iter_mut().zip(sums) {
        *value = byte(*sum, taps.precision);
    }
}

fn byte(sum: i32, precision: u32) -> u8 {
    (sum >> precision).clamp(0, 255) as u8
}
