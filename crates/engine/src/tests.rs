//! The engine end to end on a small deterministic model, stepped by hand under a virtual clock.

mod bench;
mod equality;
mod lifecycle;
mod limits;
mod model;
mod prefix;
mod real;
mod scenarios;
mod simulation;
mod soak;
