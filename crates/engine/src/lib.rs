//! engine

pub mod sampler;
