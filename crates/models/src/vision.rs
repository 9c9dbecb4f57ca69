//! How a model sees: the tower that turns pictures into rows for the text layers, and where those rows stand.

mod clip;
mod layout;

use std::ops::Range;
use std::sync::Arc;

pub use clip::ClipForm;
use images::{ClipRecipe, Patches, Recipe};
pub use layout::{Layout, LayoutError, Placed, lay_out};
use tensor::Kernels;

/// What makes a model see.
pub struct Vision {
    /// Turns pictures into features.
    pub tower: Box<dyn Tower>,
    /// Which tokens stand for pictures.
    pub marks: Marks,
    /// How a picture becomes patches.
    pub recipe: Recipe,
    /// How a clip becomes patches, if the model's files say so.
    pub clips: Option<ClipRecipe>,
}

impl Vision {
    /// The same, with a tower that has the same weights and working memory of its own.
    pub(crate) fn twin(&self, kernels: Arc<dyn Kernels>) -> Self {
        Self {
            tower: self.tower.twin(kernels),
            marks: self.marks,
            recipe: self.recipe.clone(),
            clips: self.clips.clone(),
        }
    }
}

/// The tokens that stand for pictures, and how many patches become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marks {
    /// One per token of an image.
    pub image: u32,
    /// One per token of a frame of a clip.
    pub video: u32,
    /// So many patches along each axis become one token.
    pub merge: usize,
}

/// Extent of a picture or of a frame of a clip, in patches. Both are multiples of [`Marks::merge`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Grid {
    /// Rows.
    pub h: usize,
    /// Columns.
    pub w: usize,
}

impl Grid {
    /// Patches.
    pub fn patches(self) -> usize {
        self.h * self.w
    }

    /// Tokens of a prompt.
    pub fn tokens(self, merge: usize) -> usize {
        self.patches() / (merge * merge)
    }
}

/// A picture, or a frame of a clip, that a tower reads.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Its extent.
    pub grid: Grid,
    /// What it shows.
    pub pixels: Pixels,
}

/// A row of [`TowerShape::patch_values`] per patch, where patches that become one token follow each other.
#[derive(Clone, Debug)]
pub enum Pixels {
    /// The rows themselves.
    Values(Arc<Vec<f32>>),
    /// What they are made from as they are read: those of one step of time.
    Patches {
        /// A picture or a clip.
        made: Arc<Patches>,
        /// The step; 0 of a picture.
        step: usize,
    },
}

impl Pixels {
    /// Writes the values of some patches, as many as fill `values`.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn fill(&self, patches: Range<usize>, values: &mut [f32]) {
        match self {
            Self::Values(rows) => {
                let width = values.len() / patches.len().max(1);
                values.copy_from_slice(&rows[patches.start * width..patches.end * width]);
            }
            Self::Patches { made, step } => {
                let first = made.step(*step).start;
                made.fill(first + patches.start..first + patches.end, values);
            }
        }
    }
}

/// What an engine must know about a tower to plan for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TowerShape {
    /// Values of one patch.
    pub patch_values: usize,
    /// Rows of features per token: the one that replaces its embedding, and those that are added later.
    pub levels: usize,
    /// Width of a row of features, as of the decoder's rows.
    pub width: usize,
    /// Side of a patch in pixels.
    pub patch: usize,
    /// Frames of a clip that one row of values holds.
    pub temporal: usize,
    /// So many patches along each axis become one token.
    pub merge: usize,
    /// Parameters, for people; the decoder's count has them too.
    pub parameters: u64,
    /// Bytes of packed weights in memory.
    pub weight_bytes: usize,
    /// Bytes of the working memory that does not depend on the picture.
    pub workspace_bytes: usize,
}

impl TowerShape {
    /// Bytes of the features of so many tokens.
    pub fn feature_bytes(&self, tokens: usize) -> usize {
        tokens * self.levels * self.width * size_of::<f32>()
    }
}

/// Turns pictures into features, one at a time and in parts, so that whoever owns the time may do other things between.
///
/// For the implementer: what comes of a picture does not depend on the parts in which it was read, nor on what was read
/// before. Memory that depends on the size of a picture is let go with it.
pub trait Tower: Send {
    /// What an engine must know to plan.
    fn shape(&self) -> TowerShape;

    /// As [`crate::CausalLm::twin`]; it has no picture.
    fn twin(&self, kernels: Arc<dyn Kernels>) -> Box<dyn Tower>;

    /// Multiplications that a picture of that extent takes.
    fn work(&self, grid: Grid) -> u64;

    /// Takes a picture on, and forgets the one before if it was not finished.
    ///
    /// # Errors
    /// When memory for it is refused.
    fn begin(&mut self, frame: Frame) -> Result<(), tensor::TensorError>;

    /// Does about so many multiplications, at least a few rows' worth, and returns the features when they are whole.
    /// Without a picture it does nothing.
    fn advance(&mut self, work: u64) -> Option<Features>;

    /// Forgets the picture that was begun.
    fn abandon(&mut self);
}

/// What a tower makes of a picture: per level a row for each token.
#[derive(Clone, Debug, PartialEq)]
pub struct Features {
    tokens: usize,
    width: usize,
    /// `levels × tokens × width`.
    values: Vec<f32>,
}

impl Features {
    /// From `levels × tokens × width` values.
    ///
    /// # Panics
    /// If `values` are not whole levels.
    pub fn new(tokens: usize, width: usize, values: Vec<f32>) -> Self {
        assert!(
            tokens * width > 0 && values.len().is_multiple_of(tokens * width),
            "whole levels of features"
        );
        Self { tokens, width, values }
    }

    /// Tokens of the picture.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Levels, of which the first replaces embeddings and the others are added after a layer each.
    pub fn levels(&self) -> usize {
        self.values.len() / (self.tokens * self.width)
    }

    /// The rows of some tokens at a level.
    pub fn rows(&self, level: usize, tokens: Range<usize>) -> &[f32] {
        let first = level * self.tokens;
        &self.values[(first + tokens.start) * self.width..(first + tokens.end) * self.width]
    }

    /// All of them: `levels × tokens × width`.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// Bytes that it holds.
    pub fn bytes(&self) -> usize {
        size_of_val(self.values.as_slice())
    }
}
