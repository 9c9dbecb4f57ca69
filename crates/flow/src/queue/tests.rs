//! The queue as its users see it, in virtual time.

use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::{advance, sleep};

use super::policy::Discipline;
use super::*;

mod cancelled;
mod durable;
mod leases;
mod model;
mod orders;
mod overload;
mod room;
mod schedules;
mod stalls;
mod streams;
mod together;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn times(n: u32) -> NonZeroU32 {
    NonZeroU32::new(n).unwrap()
}

fn fifo() -> Discipline {
    "fifo".parse().unwrap()
}

/// Lets every task run that can.
async fn let_others_run() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

/// Nothing waits, is out or is kept for anybody.
fn assert_at_rest<T: Send + 'static>(queue: &Queue<T>) {
    let stats = queue.stats();
    assert_eq!((stats.depth, stats.cost, stats.bytes, stats.in_flight), (0, 0, 0, 0), "{stats:?}");
    assert_eq!(queue.shared.exchange.waiting(), (0, 0, 0));
}
