//! Continuous batching: many requests, one model, one step at a time.
//!
//! An [`Engine`] owns a loaded model and serves it through [`protocol::Inference`]. Requests wait in a bounded queue,
//! run as sequences of one ragged batch, and stream back what they sample:
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//!
//! use engine::{Engine, EngineSettings};
//! use futures::StreamExt;
//! use models::{LoadOptions, Repository};
//! use protocol::{Event, GenerateRequest, Inference, Prompt};
//!
//! let options = LoadOptions { dtype: None, quantise: None, kv: None, max_batch_tokens: 512, max_outputs: 64 };
//! let kernels = Arc::new(tensor::reference::Reference::default());
//! let model = models::load(&Repository::folder("models/qwen3")?, &options, kernels)?;
//! let engine = Engine::start(model, EngineSettings::default())?;
//! let prompt = Prompt::Text("Once upon a tide".to_owned());
//! let mut events = engine.generate(GenerateRequest::new("story", prompt)).await?;
//! while let Some(event) = events.next().await {
//!     if let Event::Delta(delta) = event {
//!         print!("{}", delta.text);
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Where things are: `step.rs` is the engine's step, in verbs. `plan.rs` decides what a step computes, as a pure
//! function. `sequence.rs` is one continuation, `request.rs` one client's request. `run_loop.rs` is the thread that
//! owns all of them, and `engine.rs` the outside of it. [`sampler`] turns logits into tokens.
//!
//! Models that do not generate are served by [`Dynamic`], and encoders by [`EncoderEngine`], which is made of it. [`Router`]
//! puts several engines behind one door, and [`Turns`] shares the compute threads between them. [`Replicas`] are engines with
//! the same model, each on a [`Device`] of its own.
//!
//! Pictures in prompts are prepared and read in `vision.rs` and the files below it.
//!
//! What this crate refuses to know: HTTP, files, devices, and how a model computes its logits.

mod clock;
mod compute;
mod delivery;
mod draws;
mod dynamic;
mod engine;
mod error;
mod form;
mod line;
mod meters;
mod outbox;
mod pacing;
mod parameters;
mod pid;
mod plan;
mod prefix;
mod pressure;
mod prompt;
mod reading;
mod reasoning;
mod replicas;
mod request;
mod reuse;
mod revive;
mod roll;
mod router;
mod run_loop;
pub mod sampler;
mod seating;
mod sequence;
mod settings;
pub mod simulation;
mod speculation;
mod step;
mod step_time;
mod stop_text;
mod sum;
#[cfg(test)]
mod tests;
mod tier;
pub mod trace;
mod turns;
mod vectors;
mod vision;
mod watch;
mod weights;

pub use dynamic::encoder::EncoderEngine;
pub use dynamic::{BatchModel, Dynamic, DynamicSettings, ItemError, Terms};
pub use engine::{Engine, StopReport};
pub use error::EngineError;
pub use parameters::{
    MAX_CACHE_SALT_BYTES, MAX_CHOICES, MAX_LOGPROBS, MAX_STOP_BYTES, MAX_STOPS, MAX_TEMPERATURE,
};
pub use pid::{Gains, PidSettings};
pub use pressure::Eased;
pub use replicas::Replicas;
pub use reuse::{Coalescing, Reuse, ReuseSettings};
pub use revive::Revive;
pub use router::{Router, Supply};
pub use settings::{EngineSettings, KvBudget, PrefixSharing};
pub use tier::KvTier;
pub use turns::{Device, Seat, Turns};
pub use vision::VisionSettings;
pub use vision::attic::FeatureTier;
