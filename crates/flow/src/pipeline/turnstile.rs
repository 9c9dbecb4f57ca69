//! A rate limit that callers wait for, one after the other.

use std::sync::{Mutex, PoisonError};

use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};

use crate::rate::TokenBucket;

/// Lets callers through at the rate of a bucket, in the order in which they came.
#[derive(Debug)]
pub(super) struct Turnstile {
    bucket: Mutex<TokenBucket>,
    since: Instant,
    /// Whoever has it is next; the others stand in its line instead of racing for each token.
    front: Semaphore,
}

impl Turnstile {
    pub(super) fn new(bucket: TokenBucket) -> Self {
        Self { bucket: Mutex::new(bucket), since: Instant::now(), front: Semaphore::new(1) }
    }

    /// Waits for one token, and says when it was taken. Dropped earlier, it takes none.
    pub(super) async fn pass(&self) -> Instant {
        let _front = self.front.acquire().await;
        loop {
            let now = Instant::now();
            let since = now.saturating_duration_since(self.since);
            let taken = self.bucket.lock().unwrap_or_else(PoisonError::into_inner).try_take(since, 1);
            match taken {
                Ok(()) => return now,
                Err(wait) => sleep(wait).await,
            }
        }
    }
}
