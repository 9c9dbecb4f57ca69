//! Continuous batching: many requests, one model, one step at a time.

mod clock;
mod compute;
mod delivery;
mod engine;
mod error;
mod gate;
mod line;
mod meters;
mod outbox;
mod parameters;
mod plan;
mod prompt;
mod request;
mod roll;
mod run_loop;
pub mod sampler;
mod seating;
mod sequence;
mod settings;
mod step;
mod stop_text;
#[cfg(test)]
mod tests;

pub use engine::{Engine, StopReport};
pub use error::EngineError;
pub use parameters::{MAX_CHOICES, MAX_LOGPROBS, MAX_STOP_BYTES, MAX_STOPS, MAX_TEMPERATURE};
pub use settings::{EngineSettings, KvBudget, MemoryPlan};
