//! Checkpoint in, logits out: model families, tokenizers and chat templates of Hugging Face folders.
//!
//! A model has no clock, thread, channel or I/O after load, and makes no batching decision: it is given a ragged
//! [`Batch`] and KV pages and returns logits. Read `family.rs` first.

mod batch;
mod error;
mod families;
mod family;

pub mod chat_template;
pub mod config;
pub mod generation;
pub mod loaded;
pub mod repository;
pub mod tokenizer;

pub use batch::Batch;
pub use error::ModelError;
pub use family::{CausalLm, Family, ModelShape};
pub use loaded::{LoadOptions, LoadedModel, load};
pub use repository::Repository;
