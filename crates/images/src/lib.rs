//! Encoded pictures in, patches of a model out.
//!
//! A picture is looked at in three steps, each dearer than the one before: [`inspect`] reads its header and checks it
//! against [`Limits`], [`grid`] says how many patches and tokens it will be, [`patches`] decodes, resizes and cuts it as a
//! model's [`Recipe`] says. [`clip`] does the same for the frames of a video. [`Pool`] runs this work on threads of its
//! own, bounded and by urgency.
//!
//! This crate refuses to know models, requests and HTTP. Read `header.rs` first, then `patches.rs`.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod bicubic;
mod clip;
mod error;
mod grid;
mod header;
mod patches;
mod picture;
mod pool;
mod recipe;

pub use clip::{Clip, ClipOutline, ClipRecipe, Frames, clip, clip_outline};
pub use error::{ImageError, RecipeError};
pub use grid::{Grid, grid};
pub use header::{Format, Header, Limits, inspect};
pub use patches::{Patches, patches, step_hash, still_hash};
pub use pool::{Meters, Pool, PoolError, PoolSettings, Preparing, Urgency};
pub use recipe::Recipe;
