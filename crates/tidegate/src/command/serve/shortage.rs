//! Looks at how short memory is, and tells the engine.

use std::sync::Arc;
use std::time::Duration;

use engine::Eased;
use flow::metrics::System;
use flow::scheduler::Reading;
use tokio::time::{MissedTickBehavior, interval, timeout};

/// Looks for ever, every so often. An engine that is in the middle of a long step is told again later.
pub(super) async fn watch(eased: Arc<Eased>, every: Duration) {
    let system = System::here();
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // What has not been answered in time is in the engine's hands all the same.
        let _ = timeout(every, eased.observe(Reading::of(&system))).await;
    }
}
