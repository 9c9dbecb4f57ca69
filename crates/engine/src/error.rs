//! What can go wrong when an engine starts.

use memory::MemoryError;

/// Why an engine did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// A setting that cannot work.
    #[error("the setting {setting} must be {expected}, got {found}")]
    Setting {
        /// Which one.
        setting: &'static str,
        /// What would work.
        expected: String,
        /// What it was.
        found: usize,
    },
    /// The memory for keys and values was refused.
    #[error("cannot reserve memory for keys and values: {0}; lower the KV budget")]
    Memory(#[from] MemoryError),
    /// The model failed on its first token.
    #[error("the model failed while warming up: {message}")]
    WarmUp {
        /// What the model said.
        message: String,
    },
    /// The engine's thread could not be started.
    #[error("cannot start the engine's thread: {0}")]
    Thread(#[source] std::io::Error),
}
