//! The facade.
pub mod settings;
