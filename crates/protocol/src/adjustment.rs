//! What can be changed while an engine runs.

/// A change to a running engine. It concerns everybody, so it is for whoever runs the engine and not for its clients.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Adjustment {
    /// Forget the keys and values of all prompts, as when they must not be reused after a test. What runs keeps its own.
    ClearPrefixCache,
}
