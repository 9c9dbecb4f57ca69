//! How long things take, and what the system says of this process.

use std::sync::PoisonError;
use std::time::Duration;

use flow::metrics::System;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use serde_json::{Value, json};

/// Distributions and counters by name.
#[pyclass(frozen)]
pub(crate) struct Metrics {
    metrics: flow::Metrics,
}

#[pymethods]
impl Metrics {
    /// Records everything.
    #[new]
    fn new() -> Self {
        Self { metrics: flow::Metrics::new() }
    }

    /// Records nothing and costs next to nothing.
    #[staticmethod]
    fn off() -> Self {
        Self { metrics: flow::Metrics::off() }
    }

    /// Begins to time something.
    fn begin(&self, name: &str) -> Timing {
        Timing(std::sync::Mutex::new(Some(self.metrics.track(name))))
    }

    /// Counts something.
    fn count(&self, name: &str, many: u64) {
        self.metrics.counter(name).add(many);
    }

    /// Sets a level.
    fn level(&self, name: &str, value: i64) {
        self.metrics.gauge(name).set(value);
    }

    /// All of it in the text format of Prometheus.
    fn exposition(&self) -> PyResult<String> {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self.metrics.clone()));
        let mut page = String::new();
        encode(&mut page, &registry).map_err(|error| PyRuntimeError::new_err(error.to_string()))?;
        Ok(page)
    }

    /// Memory of the process and of the system, as JSON; bytes, and shares from 0 to 1.
    fn memory(&self) -> String {
        let system = System::here();
        let (process, memory) = (system.process(), system.memory());
        json!({
            "process_bytes": process.resident_bytes,
            "available_bytes": memory.room(),
            "total_bytes": memory.capacity(),
            "used_share": memory.used_share(),
        })
        .to_string()
    }

    /// How long things took, as JSON by name.
    fn timings(&self) -> String {
        let millis = |time: Duration| time.as_secs_f64() * 1e3;
        let timings = self.metrics.snapshot().tracks.into_iter().map(|(name, track)| {
            let took = track.latency;
            let value = json!({
                "count": took.count(),
                "failed": track.failed,
                "in_flight": track.in_flight,
                "mean_ms": millis(took.mean()),
                "p50_ms": millis(took.quantile(0.5)),
                "p95_ms": millis(took.quantile(0.95)),
                "p99_ms": millis(took.quantile(0.99)),
                "max_ms": millis(took.max()),
            });
            (name.to_string(), value)
        });
        Value::Object(timings.collect()).to_string()
    }
}

/// Something that is being timed.
#[pyclass(frozen)]
pub(crate) struct Timing(std::sync::Mutex<Option<flow::metrics::Timing>>);

#[pymethods]
impl Timing {
    /// It has ended.
    fn end(&self) {
        drop(self.take());
    }

    /// It has failed.
    fn fail(&self) {
        if let Some(timing) = self.take() {
            timing.fail();
        }
    }
}

impl Timing {
    fn take(&self) -> Option<flow::metrics::Timing> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
