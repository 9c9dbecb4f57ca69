//! Items move through queues, stages and graphs under backpressure, and each ends in exactly one outcome.
//!
//! ```text
//!   producers ──put──▶ Queue ──take──▶ Pipeline ────────────────────────────────▶ results
//!                      │ Line: bounds,    │ stage ▶ stage ▶ Batcher ▶ stage
//!                      │ policy, ids      │ each with workers, rate, timeout,
//!                      │ leases, keys,    │ Retry (RetryBudget), Breaker
//!                      │ dead letters     │
//!                      ▼                  ├── acquire ──▶ Scheduler: memory, devices, slots, nothing promised twice
//!                    Store                ├── get ──────▶ Graph: computes what is asked for, and only what changed
//!               (memory, disk)            └── track ────▶ Metrics: histograms, counters, what the system says,
//!                                                         and what all of these have come to: one page
//! ```
//!
//! | to | use | read first |
//! |---|---|---|
//! | let work wait, fairly, bounded, and lose none | [`Queue`]; durable with [`queue::store`] | `queue.rs` |
//! | do the same inside of one thread that never waits | [`Line`], behind a [`Gate`] | `queue/line.rs`, `queue/gate.rs` |
//! | take items through steps that can fail | [`Pipeline`] | `pipeline.rs` |
//! | work on many items at once, soon | [`Batcher`] | `batcher.rs` |
//! | compute what depends on something, once | [`graph`] | `graph.rs` |
//! | run operations side by side, in turns | [`Lanes`] | `lanes.rs` |
//! | run work that needs memory, processors, devices | [`Scheduler`], [`WorkerPool`] | `scheduler.rs` |
//! | try again; stop trying | [`Retry`], [`Breaker`] | `retry.rs`, `breaker.rs` |
//! | know how long it takes and how often it fails | [`Metrics`] | `metrics.rs` |
//!
//! Each stands alone; the arrows are the ways in which they are made to fit together. `examples/` has a short program
//! for each.
//!
//! This crate refuses to know what an item is. Its policies, breaker and retries are synchronous and are told the time;
//! its queues, pipelines and schedulers are futures on tokio's clock, and every one of them may be dropped at any await:
//! no item is lost, and nothing that was held stays held.

#![warn(missing_docs)]

pub mod batcher;
pub mod breaker;
mod error;
pub mod graph;
pub mod lanes;
pub mod metrics;
pub mod pipeline;
pub mod queue;
pub mod random;
pub mod rate;
mod ready;
pub mod retry;
pub mod scheduler;
pub mod work;

pub use batcher::{Batch, Batcher};
pub use breaker::{Breaker, BreakerRules, BreakerState};
pub use error::FlowError;
pub use graph::Graph;
pub use lanes::{LanePermit, Lanes};
pub use metrics::{Histogram, HistogramSnapshot, Metrics};
pub use pipeline::{Failure, Pipeline};
pub use queue::{Capacity, Gate, Lease, Line, Queue, Refused, Rejected, Taken, Ticket, TicketId};
pub use random::Random;
pub use retry::{Backoff, Class, Classify, Retry, RetryBudget};
pub use scheduler::{Scheduler, WorkerPool};
pub use work::{Classed, Cx, StageError, Work};

/// The README's Rust code compiles.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
pub struct Readme;
