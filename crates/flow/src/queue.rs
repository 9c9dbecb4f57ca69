//! Where items wait: bounded, in the order of a policy.

pub mod line;
pub mod policy;
pub mod store;
mod ticket;
mod tickets;

pub use line::Line;
pub use ticket::{Capacity, Reason, Refused, Taken, Ticket, TicketId};
