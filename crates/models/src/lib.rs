//! Checkpoint in, logits or vectors out: model families, tokenizers and chat templates of Hugging Face folders and
//! GGUF files.
//!
//! A model has no clock, thread, channel or I/O after load, and makes no batching decision: it is given a ragged
//! [`Batch`] and KV pages and returns logits, or an [`EncoderBatch`] and returns hidden states. Read `family.rs` and
//! `encoder.rs` first, then `layers/decoder.rs`; `vision.rs` for models that see.

mod batch;
mod embedder;
pub mod encoder;
mod error;
mod families;
mod family;
mod gguf;
mod head;
mod layers;
mod loaded_encoder;
mod progress;
mod recipe;
mod sentence;

pub mod cache;
pub mod chat_template;
pub mod checkpoint;
pub mod config;
pub mod generation;
pub mod loaded;
pub mod quantise;
pub mod repository;
pub mod tokenizer;
pub mod vision;

#[cfg(test)]
mod tests;

pub use batch::{Batch, PictureRows, Position};
pub use cache::PackedCache;
pub use embedder::Embedder;
pub use encoder::{Encoder, EncoderBatch, EncoderShape};
pub use error::ModelError;
pub use families::FAMILIES;
pub use family::{CausalLm, Family, LoadFamily, ModelKind, ModelShape, Outputs, Seeing, Source};
pub use gguf::Dialect;
pub use head::{Gathering, Pooling, Scaling, Squash};
pub use loaded::{LoadOptions, LoadedModel, ModelHolding, Quantisation, kind, load, load_with};
pub use loaded_encoder::{LoadedEncoder, Outcome, SentenceReader, load_encoder, load_encoder_with};
pub use progress::{Loading, Progress, Unwatched, Watch};
pub use repository::{InMemory, Repository};
pub use sentence::Prompts;
