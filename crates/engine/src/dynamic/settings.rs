//! How a dynamic batcher works.

use std::time::Duration;

use flow::queue::policy::PolicySettings;

/// How requests to a [`super::BatchModel`] wait and are put together.
#[derive(Clone, Debug, PartialEq)]
pub struct DynamicSettings {
    /// The most inputs of a batch.
    pub batch_items: usize,
    /// The most that the inputs of a batch cost together; one that alone costs more goes alone.
    pub batch_cost: u64,
    /// No input waits longer than that for others while the model is idle, and none waits at all unless inputs come so
    /// fast that the batch should be full by then.
    pub max_delay: Duration,
    /// Only inputs of similar cost go together: up to the first bound, above it and up to the second, and so on. For
    /// models that pad; empty for those that do not.
    pub buckets: Vec<u64>,
    /// Requests that may wait, those that are still being prepared included.
    pub queue_requests: usize,
    /// What may wait, by cost. One request alone in the queue may exceed it.
    pub queue_cost: u64,
    /// In which order they are served; its owners are the tenants.
    pub policy: PolicySettings,
    /// With work to do and no batch finished for so long, the model counts as stalled.
    pub stall_after: Duration,
    /// A model that has not come back from a batch for so long is left behind and loaded again, if it is known how: far
    /// longer than a batch can take. The inputs of that batch fail, and nothing else does. `None` waits for ever.
    pub restart_after: Option<Duration>,
}

impl Default for DynamicSettings {
    fn default() -> Self {
        Self {
            batch_items: 64,
            batch_cost: 512,
            max_delay: Duration::from_millis(5),
            buckets: Vec::new(),
            queue_requests: 512,
            queue_cost: 1 << 20,
            policy: PolicySettings::default(),
            stall_after: Duration::from_secs(30),
            restart_after: Some(Duration::from_secs(600)),
        }
    }
}
