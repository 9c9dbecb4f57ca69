//! The engine end to end on a small deterministic model, stepped by hand under a virtual clock.

pub(crate) mod bench;
mod embedding;
pub(crate) mod equality;
mod lifecycle;
mod limits;
pub(crate) mod model;
mod prefix;
mod real;
mod scenarios;
mod simulation;
mod soak;
mod tier;
mod together;
pub(crate) mod watch;
