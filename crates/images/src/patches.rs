//! The rows that a vision tower reads: patches of a resized picture, the patches of one token next to each other.

use sha2::{Digest, Sha256};

use crate::bicubic::{Taps, across, down_row};
use crate::error::ImageError;
use crate::grid::{Grid, Size, cut, still_size};
use crate::header::Limits;
use crate::picture::{Picture, decode};
use crate::recipe::Recipe;

/// A picture or a clip as a vision tower takes it.
#[derive(Clone, Debug, PartialEq)]
pub struct Patches {
    /// How many there are.
    pub grid: Grid,
    /// `grid.patches()` rows of `recipe.patch_values()` numbers. Rows go by step of time, then by token, then by patch
    /// within the token; a row goes by channel, frame, y, x.
    pub values: Vec<f32>,
    /// SHA-256 of the encoded bytes and of the recipe: the same hash means the same values.
    pub hash: [u8; 32],
}

/// Decodes a still picture, resizes it and cuts it into patches.
///
/// # Errors
/// If the file cannot be decoded within the limits, or its picture is too narrow.
pub fn patches(bytes: &[u8], recipe: &Recipe, limits: &Limits) -> Result<Patches, ImageError> {
    let picture = decode(bytes, limits)?;
    let size = still_size(picture.size, recipe)?;
    let grid = cut(size, 1, recipe);
    let mut values = vec![0.0; grid.patches() * recipe.patch_values()];
    let frames = 0..recipe.temporal_patch_size;
    lay(picture, size, recipe, &mut Slot { values: &mut values, frames });
    let hash = digest([bytes], recipe);
    Ok(Patches { grid, values, hash })
}

/// The hash of pictures that belong together, in order. Lengths are hashed so that no byte can pass from one to the next.
pub(crate) fn digest<'a>(pictures: impl IntoIterator<Item = &'a [u8]>, recipe: &Recipe) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(recipe.fingerprint());
    for picture in pictures {
        hash.update((picture.len() as u64).to_le_bytes());
        hash.update(picture);
    }
    hash.finalize().into()
}

/// Where a frame goes: the patches of one step of time, and which of their frames it is.
pub(crate) struct Slot<'a> {
    pub(crate) values: &'a mut [f32],
    pub(crate) frames: std::ops::Range<usize>,
}

/// Resizes a frame and writes it into its slot.
pub(crate) fn lay(picture: Picture, size: Size, recipe: &Recipe, slot: &mut Slot<'_>) {
    let width = size.width * 3;
    let picture = across(picture, size.width);
    if picture.size.height == size.height {
        for (y, row) in picture.rgb.chunks_exact(width).enumerate() {
            lay_row(row, y, recipe, slot);
        }
        return;
    }
    let taps = Taps::new(picture.size.height, size.height);
    let (mut sums, mut row) = (vec![0; width], vec![0; width]);
    for y in 0..size.height {
        down_row(&picture, &taps, y, &mut sums, &mut row);
        lay_row(&row, y, recipe, slot);
    }
}

/// Writes row `y` of a resized frame to where its pixels belong.
fn lay_row(row: &[u8], y: usize, recipe: &Recipe, slot: &mut Slot<'_>) {
    let (side, merge) = (recipe.patch_size, recipe.merge_size);
    let across = row.len() / (3 * side);
    let (patch_row, line) = (y / side, y % side);
    let (block_row, inner_row) = (patch_row / merge, patch_row % merge);
    let plane = side * side;
    for (column, pixels) in row.chunks_exact(3 * side).enumerate() {
        let block = block_row * (across / merge) + column / merge;
        let index = (block * merge + inner_row) * merge + column % merge;
        let patch = &mut slot.values[index * recipe.patch_values()..][..recipe.patch_values()];
        for channel in 0..3 {
            let (mean, std) = (f64::from(recipe.mean[channel]), f64::from(recipe.std[channel]));
            let (mean, std) = ((mean / recipe.rescale) as f32, (std / recipe.rescale) as f32);
            for frame in slot.frames.clone() {
                let start = (channel * recipe.temporal_patch_size + frame) * plane + line * side;
                let values = &mut patch[start..start + side];
                for (value, pixel) in values.iter_mut().zip(pixels.as_chunks::<3>().0) {
                    *value = (f32::from(pixel[channel]) - mean) / std;
                }
            }
        }
    }
}
