//! Checkpoint in, logits out: model families, tokenizers and chat templates of Hugging Face folders and
//! GGUF files.
//!
//! A model has no clock, thread, channel or I/O after load, and makes no batching decision: it is given a ragged
//! [`Batch`] and KV pages and returns logits. Read `family.rs` first, then `layers/decoder.rs`.

mod batch;
mod error;
mod families;
mod family;
mod gguf;
mod layers;

pub mod chat_template;
pub mod checkpoint;
pub mod config;
pub mod generation;
pub mod loaded;
pub mod repository;
pub mod tokenizer;

#[cfg(test)]
mod tests;

pub use batch::Batch;
pub use error::ModelError;
pub use families::FAMILIES;
pub use family::{CausalLm, Family, LoadFamily, ModelShape, Source};
pub use gguf::Dialect;
pub use loaded::{LoadOptions, LoadedModel, Quantisation, load};
pub use repository::Repository;
