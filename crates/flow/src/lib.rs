//! Items wait in bounded queues, leave in the order of a policy, and pass at a rate.
//!
//! This crate refuses to know what an item is, and what time it is: every call that depends on time is told the time
//! since a moment of the caller's choice, which must not go back. It has no threads, no channels and no clock; whoever
//! owns a queue decides how callers wait. Read `queue.rs` first, then `queue/policy.rs`.

#![warn(missing_docs)]

mod error;
pub mod queue;
pub mod rate;

pub use error::FlowError;
pub use queue::{Capacity, Line, Refused, Taken, Ticket, TicketId};
