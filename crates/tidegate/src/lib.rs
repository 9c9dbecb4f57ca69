//! Tidegate as a library: settings in, a running [`protocol::Inference`] out.
//!
//! [`open`] loads a model and starts the engine; [`serve_settings`] turns the server's part of the settings into what
//! the HTTP front takes. The `tidegate` command is built from nothing else. Requests, events and refusals are plain
//! data of the [`protocol`] crate, which is the one re-exported here; the crates below are private to the wiring.
//!
//! ```
//! use futures::StreamExt;
//! use tidegate::protocol::{Event, GenerateRequest, Prompt};
//! use tidegate::settings::InferenceSettings;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // Without a model in the settings this is the small one inside the library: no file, no network.
//! let opened = tidegate::open(&InferenceSettings::default())?;
//!
//! let mut request = GenerateRequest::new("first", Prompt::Text("Once upon a tide".to_owned()));
//! request.sampling.temperature = Some(0.0);
//! request.limits.max_tokens = Some(8);
//!
//! let text = tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
//!     let mut events = opened.inference.generate(request).await?;
//!     let mut text = String::new();
//!     while let Some(event) = events.next().await {
//!         match event {
//!             Event::Delta(delta) => text += &delta.text,
//!             Event::Failed(failure) => return Err(failure.into()),
//!             _ => {}
//!         }
//!     }
//!     Ok::<_, Box<dyn std::error::Error>>(text)
//! })?;
//! assert!(!text.is_empty());
//! # Ok(())
//! # }
//! ```

#![warn(missing_docs)]

// The command says `tidegate::` of this library, as programs of others do.
extern crate self as tidegate;

mod command;
mod embedded;
mod error;
mod heed;
mod keys;
mod kv_tier;
pub mod lanes;
mod memory_watch;
mod open;
pub mod settings;
mod trace_file;

/// Models of one's own, served in batches with the same queue, fairness, deadlines and isolation of errors as those that
/// Tidegate opens. `examples/user_model.rs` is a program that does it.
pub mod batching {
    pub use engine::{BatchModel, Dynamic, DynamicSettings, ItemError, Revive, StopReport, Terms};
}

/// What [`open_in_memory`] takes: a model that the program has in memory, and its tensors.
pub mod in_memory {
    pub use models::InMemory;
    pub use tensor::Dtype;
    pub use tensor::stored::{FileBytes, Tensors};
}

/// Tensors put away in memory, on a device and on the disk, by name, and brought back bit for bit; and the ladder of these places.
/// `examples/offload.rs` is a program that does it.
pub mod memory {
    pub use crate::heed::heed;
    pub use crate::memory_watch::MemoryWatch;
    pub use flow::scheduler::{Reading, Watermarks};
    pub use memory::devices::{Description, DeviceChoice, DeviceError, Kind, devices};
    pub use memory::eviction::{Eviction, Facts, POLICIES, Policy};
    pub use memory::ladder::OpenError as OffloaderError;
    pub use memory::replay;
    pub use memory::rung::{Level, Medium};
    pub use memory::{
        Buffer, BufferPool, LadderError, LadderStatistics, Loaded, OffloadError, Offloader,
        OffloaderSettings, PolicyChoice, Residency,
    };
}

pub use command::run_command;
pub use engine::Reuse;
pub use error::OpenError;
pub use keys::serve_settings;
pub use open::{
    Loaded, Opened, Source, Summary, load, open, open_in_memory, open_watched, quantise, simulate,
};
pub use protocol;
pub use trace_file::{TraceError, read_trace};
