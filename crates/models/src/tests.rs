//! Whole models: seeded tiny folders against an oracle, in ragged batches against alone, and folders that are wrong.

mod batching;
mod embedder;
pub(crate) mod folder;
mod gguf;
mod hostile;
mod mutated;
mod oracle;
mod vision;

pub(crate) use folder::tokenizer_json;
