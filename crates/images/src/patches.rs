//! The rows that a vision tower reads: patches of a resized picture, the patches of one token next to each other.

use std::fmt;
use std::ops::Range;

use pulp::Arch;
use sha2::{Digest, Sha256};

use crate::bicubic::{Taps, across, down_row};
use crate::error::ImageError;
use crate::grid::{Grid, Size, cut, still_size};
use crate::header::Limits;
use crate::picture::{Picture, decode};
use crate::recipe::Recipe;

/// A picture or a clip as a vision tower takes it: bytes until they are wanted as numbers, because numbers take four times
/// the room, and a still picture, which a tower reads as several frames that are the same, as many times that.
#[derive(Clone, PartialEq)]
pub struct Patches {
    /// How many there are.
    pub grid: Grid,
    /// SHA-256 of the encoded bytes and of the recipe: the same hash means the same values.
    pub hash: [u8; 32],
    /// Rows of bytes: by step of time, then by token, then by patch within the token. A row goes by channel, frame, y, x.
    levels: Vec<u8>,
    /// Pixels of a patch.
    plane: usize,
    /// How often each frame in `levels` is repeated.
    repeat: usize,
    mean: [f32; 3],
    std: [f32; 3],
}

impl Patches {
    pub(crate) fn new(grid: Grid, hash: [u8; 32], levels: Vec<u8>, recipe: &Recipe) -> Self {
        let in_levels = |value: f32| (f64::from(value) / recipe.rescale) as f32;
        Self {
            grid,
            hash,
            plane: recipe.patch_size * recipe.patch_size,
            repeat: recipe.patch_values() * grid.patches() / levels.len(),
            levels,
            mean: recipe.mean.map(in_levels),
            std: recipe.std.map(in_levels),
        }
    }

    /// All values: `grid.patches()` rows of `recipe.patch_values()` numbers, in the order of `levels`.
    pub fn values(&self) -> Vec<f32> {
        let mut values = vec![0.0; self.levels.len() * self.repeat];
        self.fill(0..self.grid.patches(), &mut values);
        values
    }

    /// Writes the values of some rows to where they are wanted.
    ///
    /// # Panics
    /// If there are no such rows, or `values` is not as long as they are together.
    pub fn fill(&self, rows: Range<usize>, values: &mut [f32]) {
        let row = self.levels.len() / self.grid.patches();
        let levels = &self.levels[rows.start * row..rows.end * row];
        assert_eq!(values.len(), levels.len() * self.repeat, "room for the values of the rows");
        let planes = row / self.plane / 3;
        Arch::new().dispatch(|| {
            let targets = values.chunks_exact_mut(self.plane * self.repeat);
            for (place, (levels, values)) in levels.chunks_exact(self.plane).zip(targets).enumerate() {
                let channel = place / planes % 3;
                let (mean, std) = (self.mean[channel], self.std[channel]);
                let (first, others) = values.split_at_mut(self.plane);
                for (value, level) in first.iter_mut().zip(levels) {
                    *value = (f32::from(*level) - mean) / std;
                }
                for other in others.chunks_exact_mut(self.plane) {
                    other.copy_from_slice(first);
                }
            }
        });
    }

    /// The rows of a step of time.
    pub fn step(&self, step: usize) -> Range<usize> {
        let rows = self.grid.h * self.grid.w;
        step * rows..(step + 1) * rows
    }

    /// Memory that it takes.
    pub fn bytes(&self) -> usize {
        self.levels.len()
    }
}

impl fmt::Debug for Patches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Patches")
            .field("grid", &self.grid)
            .field("bytes", &self.bytes())
            .finish_non_exhaustive()
    }
}

/// Decodes a still picture, resizes it and cuts it into patches.
///
/// # Errors
/// If the file cannot be decoded within the limits, or its picture is too narrow.
pub fn patches(bytes: &[u8], recipe: &Recipe, limits: &Limits) -> Result<Patches, ImageError> {
    let picture = decode(bytes, limits)?;
    let size = still_size(picture.size, recipe)?;
    let grid = cut(size, 1, recipe);
    let mut levels = vec![0; size.width * size.height * 3];
    lay(picture, size, recipe, &mut Slot { levels: &mut levels, frame: 0, frames: 1 });
    Ok(Patches::new(grid, digest([bytes], recipe), levels, recipe))
}

/// What [`Patches::hash`] will be of a still picture.
pub fn still_hash(bytes: &[u8], recipe: &Recipe) -> [u8; 32] {
    digest([bytes], recipe)
}

/// The hash of a step of time of a clip with that hash.
pub fn step_hash(clip: &[u8; 32], step: usize) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(clip);
    hash.update((step as u64).to_le_bytes());
    hash.finalize().into()
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
    pub(crate) levels: &'a mut [u8],
    pub(crate) frame: usize,
    pub(crate) frames: usize,
}

/// Resizes a frame and writes it into its slot.
pub(crate) fn lay(picture: Picture, size: Size, recipe: &Recipe, slot: &mut Slot<'_>) {
    let width = size.width * 3;
    let picture = across(picture, size.width);
    if picture.size.height == size.height {
        Arch::new().dispatch(|| {
            for (y, row) in picture.rgb.chunks_exact(width).enumerate() {
                lay_row(row, y, recipe, slot);
            }
        });
        return;
    }
    let taps = Taps::new(picture.size.height, size.height);
    let mut row = vec![0; width];
    Arch::new().dispatch(|| {
        for y in 0..size.height {
            down_row(&picture, &taps, y, &mut row);
            lay_row(&row, y, recipe, slot);
        }
    });
}

/// Writes row `y` of a resized frame to where its pixels belong.
#[inline(always)]
fn lay_row(row: &[u8], y: usize, recipe: &Recipe, slot: &mut Slot<'_>) {
    let (side, merge) = (recipe.patch_size, recipe.merge_size);
    let across = row.len() / (3 * side);
    let (patch_row, line) = (y / side, y % side);
    let (block_row, inner_row) = (patch_row / merge, patch_row % merge);
    let plane = side * side;
    let patch_levels = 3 * slot.frames * plane;
    for (column, pixels) in row.chunks_exact(3 * side).enumerate() {
        let block = block_row * (across / merge) + column / merge;
        let index = (block * merge + inner_row) * merge + column % merge;
        let patch = &mut slot.levels[index * patch_levels..][..patch_levels];
        for channel in 0..3 {
            let start = (channel * slot.frames + slot.frame) * plane + line * side;
            part(pixels, channel, &mut patch[start..start + side]);
        }
    }
}

/// One channel of a line of a patch. The usual length is known beforehand, so that it becomes a few shuffles.
#[inline(always)]
fn part(pixels: &[u8], channel: usize, levels: &mut [u8]) {
    if let (Ok(pixels), Ok(levels)) = (<&[u8; 48]>::try_from(pixels), <&mut [u8; 16]>::try_from(&mut *levels))
    {
        for (place, level) in levels.iter_mut().enumerate() {
            *level = pixels[place * 3 + channel];
        }
        return;
    }
    for (level, pixel) in levels.iter_mut().zip(pixels.as_chunks::<3>().0) {
        *level = pixel[channel];
    }
}
