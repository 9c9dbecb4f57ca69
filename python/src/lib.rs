//! The native half of the Python package `tidegate`: what has to be Rust. What people import stands in `tidegate/`.
//!
//! A Rust future becomes a Python coroutine (`awaitable.rs`) that is polled by the event loop's own thread; whoever
//! wakes it leaves a letter in the loop's mailbox (`mailbox.rs`) and never takes the interpreter's lock. Python functions
//! become Rust futures in the other direction (`coroutine.rs`, `call.rs`). Everything else binds one crate each.
//! This crate refuses to know torch, and to decide anything that the crates below decide.

mod answer;
mod awaitable;
mod batching;
mod call;
mod dlpack;
mod engine;
mod errors;
mod graph;
mod item;
mod lanes;
mod mailbox;
mod metrics;
mod offload;
mod pipeline;
mod queue;
mod replies;
mod request;
mod runtime;
mod scheduler;

/// Names that begin with an underscore are for the package alone.
#[pyo3::pymodule(gil_used = false)]
mod _tidegate {
    #[pymodule_export]
    use crate::awaitable::Awaitable;
    #[pymodule_export]
    use crate::batching::{BatchEngine, MicroBatches};
    #[pymodule_export]
    use crate::engine::{Engine, EventStream, Job, run_command};
    #[pymodule_export]
    use crate::graph::Graph;
    #[pymodule_export]
    use crate::lanes::Lanes;
    #[pymodule_export]
    use crate::metrics::{Metrics, Timing};
    #[pymodule_export]
    use crate::offload::{LoadedMemory, Offloader};
    #[pymodule_export]
    use crate::pipeline::Pipeline;
    #[pymodule_export]
    use crate::queue::{Leased, Queue};
    #[pymodule_export]
    use crate::scheduler::Scheduler;
}
