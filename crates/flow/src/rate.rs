//! How fast things may pass, and how fast they do.

mod drain;
mod token_bucket;

pub use drain::DrainRate;
pub use token_bucket::TokenBucket;
