//! What a client may ask of an engine and what it hears back: [`Inference`] and plain data.
//!
//! This crate refuses to know how anything is computed, scheduled or transported. A server, a command line or a
//! remote gateway talks to `dyn Inference`; the engine implements it; [`scripted::Scripted`] implements it in memory
//! for tests. Read `inference.rs` first, then `request.rs` and `event.rs`, or
//! `reading.rs` for models that do not generate.

#![warn(missing_docs)]

pub mod adjustment;
pub mod event;
pub mod form;
pub mod inference;
pub mod performance;
pub mod reading;
pub mod refusal;
pub mod request;
pub mod scripted;
pub mod status;

pub use adjustment::{Adjustment, Relief};
pub use event::{Delta, Event, Failure, FinishReason, Generation, Reused, Timing, TokenLogprob, Usage};
pub use form::{Form, Marks};
pub use inference::Inference;
pub use reading::{
    EmbedInput, EmbedRequest, Embedding, Embeddings, Measure, Overlong, Purpose, ScoreRequest, Scores, Shown,
    Unserved,
};
pub use refusal::Refusal;
pub use request::{
    Chat, Clip, Content, GenerateRequest, Image, Limits, Message, Part, Priority, Prompt, RequestId,
    Sampling, Sharing, TenantId,
};
pub use status::{Health, ModelCard, Phase, Status, Task};
