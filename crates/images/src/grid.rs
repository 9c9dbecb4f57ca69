//! How large a picture becomes, in whole tokens, without decoding it.

use crate::error::ImageError;
use crate::header::Header;
use crate::recipe::Recipe;

/// How many patches a picture or a clip has along time, height and width.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Grid {
    /// Steps of time, each of `temporal_patch_size` frames; 1 for a still picture.
    pub t: usize,
    /// Rows of patches.
    pub h: usize,
    /// Patches in a row.
    pub w: usize,
}

impl Grid {
    /// Patches in all: rows of the vision tower's input.
    pub fn patches(&self) -> usize {
        self.t * self.h * self.w
    }

    /// Tokens that a prompt spends on it, `merge` being the recipe's `merge_size`.
    pub fn tokens(&self, merge: usize) -> usize {
        self.patches() / (merge * merge)
    }
}

/// Width and height in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) width: usize,
    pub(crate) height: usize,
}

/// One side may be this many times the other.
const NARROWEST: f64 = 200.0;

/// The grid that [`crate::patches`] will cut a picture into.
///
/// # Errors
/// If the picture is too narrow.
pub fn grid(header: &Header, recipe: &Recipe) -> Result<Grid, ImageError> {
    let size = still_size(Size { width: header.width as usize, height: header.height as usize }, recipe)?;
    Ok(cut(size, 1, recipe))
}

/// The grid of a picture or of `steps` steps of a clip that has been resized to `size`.
pub(crate) fn cut(size: Size, steps: usize, recipe: &Recipe) -> Grid {
    Grid { t: steps, h: size.height / recipe.patch_size, w: size.width / recipe.patch_size }
}

/// `smart_resize` of the reference: sides rounded to whole tokens, the area within the recipe's bounds, the aspect ratio
/// kept as well as may be.
pub(crate) fn still_size(size: Size, recipe: &Recipe) -> Result<Size, ImageError> {
    bounded(size, 1, 1, recipe)
}

/// The same for the frames of a clip, whose areas count together. Frames smaller than a token are scaled up first.
pub(crate) fn clip_size(size: Size, frames: usize, recipe: &Recipe) -> Result<Size, ImageError> {
    let factor = recipe.factor();
    let mut size = size;
    if size.height < factor || size.width < factor {
        let scale = (factor as f64 / size.height as f64).max(factor as f64 / size.width as f64);
        size.height = (size.height as f64 * scale) as usize;
        size.width = (size.width as f64 * scale) as usize;
    }
    let pair = recipe.temporal_patch_size;
    let rounded = (frames as f64 / pair as f64).round_ties_even() as usize * pair;
    bounded(size, frames, rounded, recipe)
}

/// `frames` scales the true area and `rounded` the rounded one, as the reference has it.
fn bounded(size: Size, frames: usize, rounded: usize, recipe: &Recipe) -> Result<Size, ImageError> {
    let Size { width, height } = size;
    let (w, h) = (width as f64, height as f64);
    if w.max(h) / w.min(h) > NARROWEST {
        return Err(ImageError::TooNarrow { width, height });
    }
    let step = recipe.factor();
    let factor = step as f64;
    let side = |pixels: f64| (pixels / factor).round_ties_even() as usize * step;
    let (wide, high) = (side(w), side(h));
    let (area, least, most) = (wide * high * rounded, recipe.min_pixels, recipe.max_pixels);
    let pixels = frames as f64 * h * w;
    if area > most {
        let beta = (pixels / most as f64).sqrt();
        let side = |pixels: f64| ((pixels / beta / factor).floor() as usize * step).max(step);
        Ok(Size { width: side(w), height: side(h) })
    } else if area < least {
        let beta = (least as f64 / pixels).sqrt();
        let side = |pixels: f64| (pixels * beta / factor).ceil() as usize * step;
        Ok(Size { width: side(w), height: side(h) })
    } else {
        Ok(Size { width: wide, height: high })
    }
}
