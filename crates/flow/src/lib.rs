//! Items wait in bounded queues, leave in the order of a policy, and pass at a rate.
//!
//! This crate refuses to know what an item is, and what time it is: every call that depends on time is told the time
//! since a moment of the caller's choice, which must not go back. It has no threads, no channels and no clock; whoever
//! owns a queue decides how callers wait. Read `queue.rs` first, then `queue/policy.rs`.

#![warn(missing_docs)]

pub mod breaker;
mod error;
pub mod metrics;
pub mod pipeline;
pub mod queue;
pub mod random;
pub mod rate;
pub mod retry;
pub mod scheduler;
pub mod work;

pub use breaker::{Breaker, BreakerRules, BreakerState};
pub use error::FlowError;
pub use metrics::{Histogram, HistogramSnapshot, Metrics};
pub use pipeline::{Failure, Pipeline};
pub use queue::{Capacity, Lease, Line, Queue, Refused, Rejected, Taken, Ticket, TicketId};
pub use random::Random;
pub use retry::{Backoff, Class, Classify, Retry, RetryBudget};
pub use scheduler::{Scheduler, WorkerPool};
pub use work::{Classed, Cx, StageError, Work};
