//! Frames of a video: which are taken, when they were shown, and the patches of all.

use std::sync::Arc;

use serde_json::Value;

use crate::error::{ImageError, RecipeError};
use crate::grid::{Grid, Size, clip_size, cut};
use crate::header::{Limits, inspect};
use crate::patches::{Patches, Slot, digest, lay};
use crate::picture::decode;
use crate::recipe::{Recipe, count, real};

/// How a model wants its clips, as its `video_preprocessor_config.json` says.
#[derive(Clone, Debug, PartialEq)]
pub struct ClipRecipe {
    /// How a frame becomes patches. Its areas are those of all frames together.
    pub frame: Recipe,
    /// Frames taken per second of the clip.
    pub fps: f64,
    /// The fewest frames taken, as far as there are so many.
    pub min_frames: usize,
    /// The most frames taken.
    pub max_frames: usize,
}

impl ClipRecipe {
    /// Reads `video_preprocessor_config.json`, or the object `video_processor` of a `processor_config.json`.
    ///
    /// # Errors
    /// If a key without a default is missing, or one holds what cannot be followed.
    pub fn from_json(config: &Value) -> Result<Self, RecipeError> {
        let present = |key: &str| config.get(key).filter(|value| !value.is_null());
        let frames = |key, default| match present(key) {
            None => Ok(default),
            found => count(found, key, 1..=1 << 20),
        };
        Ok(Self {
            frame: Recipe::from_json(config)?,
            fps: match present("fps") {
                None => 2.0,
                Some(found) => real(found, "fps", 0.0)?,
            },
            min_frames: frames("min_frames", 4)?,
            max_frames: frames("max_frames", 768)?,
        })
    }
}

/// The frames of a clip, each an encoded picture, and which of them are used.
#[derive(Clone, Debug)]
pub enum Frames {
    /// Recorded at `fps` frames per second; the recipe chooses among them.
    Recorded {
        /// All frames in order.
        frames: Vec<Arc<[u8]>>,
        /// Frames per second.
        fps: f64,
    },
    /// Chosen already: all are used.
    Chosen {
        /// The chosen frames in order.
        frames: Vec<Arc<[u8]>>,
        /// Frames per second, for their times.
        fps: f64,
    },
}

impl Frames {
    fn parts(&self) -> (&[Arc<[u8]>], f64) {
        match self {
            Self::Recorded { frames, fps } | Self::Chosen { frames, fps } => (frames, *fps),
        }
    }

    /// Bytes of all frames.
    pub(crate) fn bytes(&self) -> usize {
        self.parts().0.iter().map(|frame| frame.len()).sum()
    }

    /// The numbers of the frames that are used.
    fn chosen(&self, recipe: &ClipRecipe, limits: &Limits) -> Result<Vec<usize>, ImageError> {
        let (frames, fps) = self.parts();
        if !(fps.is_finite() && fps > 0.0) {
            return Err(ImageError::Rate { fps });
        }
        let chosen = match self {
            Self::Recorded { .. } => sampled(frames.len(), fps, recipe),
            Self::Chosen { .. } => (0..frames.len()).collect(),
        };
        let least = recipe.frame.temporal_patch_size;
        if chosen.len() < least {
            return Err(ImageError::TooFewFrames { frames: chosen.len(), least });
        }
        if chosen.len() > limits.max_frames {
            return Err(ImageError::TooManyFrames { frames: chosen.len(), limit: limits.max_frames });
        }
        Ok(chosen)
    }
}

/// A clip as a vision tower and a prompt take it.
#[derive(Clone, Debug, PartialEq)]
pub struct Clip {
    /// The patches of all steps of time.
    pub patches: Patches,
    /// When each step is shown, in seconds: the mean over its frames. A prompt states it with one decimal.
    pub seconds: Vec<f64>,
}

/// What headers tell of a clip.
#[derive(Clone, Debug, PartialEq)]
pub struct ClipOutline {
    /// The patches that it will be cut into.
    pub grid: Grid,
    /// When each step is shown, as in [`Clip`].
    pub seconds: Vec<f64>,
    /// What [`Patches::hash`] will be.
    pub hash: [u8; 32],
}

/// What [`clip`] will make of these frames, told by the headers of those that are used.
///
/// # Errors
/// As for [`clip`], as far as headers tell.
pub fn clip_outline(
    frames: &Frames,
    recipe: &ClipRecipe,
    limits: &Limits,
) -> Result<ClipOutline, ImageError> {
    let plan = plan(frames, recipe, limits)?;
    let (pictures, fps) = frames.parts();
    Ok(ClipOutline {
        grid: plan.grid(recipe),
        seconds: plan.seconds(fps, recipe),
        hash: plan.hash(pictures, recipe),
    })
}

/// Chooses frames, decodes them, resizes them and cuts them into patches; an odd number of frames repeats the last.
///
/// # Errors
/// If there are too few frames or too many, they differ in size, or one cannot be decoded within the limits.
pub fn clip(frames: &Frames, recipe: &ClipRecipe, limits: &Limits) -> Result<Clip, ImageError> {
    let plan = plan(frames, recipe, limits)?;
    let (pictures, fps) = frames.parts();
    let together = recipe.frame.temporal_patch_size;
    let used = plan.filled(together);
    let grid = plan.grid(recipe);
    let mut levels = vec![0; grid.patches() * recipe.frame.patch_values()];
    let step = levels.len() / grid.t;
    for (levels, numbers) in levels.chunks_exact_mut(step).zip(used.chunks_exact(together)) {
        for (frame, number) in numbers.iter().enumerate() {
            let picture = decode(&pictures[*number], limits)?;
            let mut slot = Slot { levels: &mut *levels, frame, frames: together };
            lay(picture, plan.size, &recipe.frame, &mut slot);
        }
    }
    let seconds = plan.seconds(fps, recipe);
    let hash = plan.hash(pictures, recipe);
    Ok(Clip { patches: Patches::new(grid, hash, levels, &recipe.frame), seconds })
}

/// What is decided about a clip before a frame is decoded.
struct Plan {
    used: Vec<usize>,
    size: Size,
}

impl Plan {
    /// The frames of all steps; an odd number of them repeats the last.
    fn filled(&self, together: usize) -> Vec<usize> {
        let mut used = self.used.clone();
        while !used.len().is_multiple_of(together) {
            used.extend(self.used.last());
        }
        used
    }

    fn hash(&self, pictures: &[Arc<[u8]>], recipe: &ClipRecipe) -> [u8; 32] {
        digest(self.used.iter().map(|number| &*pictures[*number]), &recipe.frame)
    }

    fn seconds(&self, fps: f64, recipe: &ClipRecipe) -> Vec<f64> {
        let together = recipe.frame.temporal_patch_size;
        let time = |numbers: &[usize]| {
            numbers.iter().map(|number| *number as f64 / fps).sum::<f64>() / together as f64
        };
        self.filled(together).chunks_exact(together).map(time).collect()
    }

    fn grid(&self, recipe: &ClipRecipe) -> Grid {
        cut(self.size, self.used.len().div_ceil(recipe.frame.temporal_patch_size), &recipe.frame)
    }
}

fn plan(frames: &Frames, recipe: &ClipRecipe, limits: &Limits) -> Result<Plan, ImageError> {
    let used = frames.chosen(recipe, limits)?;
    let pictures = frames.parts().0;
    let first = inspect(&pictures[used[0]], limits)?;
    for number in &used {
        let header = inspect(&pictures[*number], limits)?;
        if (header.width, header.height) != (first.width, first.height) {
            return Err(ImageError::UnequalFrames {
                frame: *number,
                width: header.width,
                height: header.height,
                first_width: first.width,
                first_height: first.height,
            });
        }
    }
    let size = Size { width: first.width as usize, height: first.height as usize };
    let size = clip_size(size, used.len(), &recipe.frame)?;
    Ok(Plan { used, size })
}

/// The frames that the reference takes: evenly spaced, first and last among them.
fn sampled(frames: usize, fps: f64, recipe: &ClipRecipe) -> Vec<usize> {
    let wanted = (frames as f64 / fps * recipe.fps) as usize;
    let taken = wanted.max(recipe.min_frames).min(recipe.max_frames).min(frames);
    if taken < 2 {
        return (0..taken).collect();
    }
    let last = frames.saturating_sub(1) as f64;
    let step = last / (taken - 1) as f64;
    (0..taken).map(|frame| (frame as f64 * step).round_ties_even() as usize).collect()
}
