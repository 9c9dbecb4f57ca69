//! A queue as the source of a pipeline: items are taken on lease, and their outcomes decide what becomes of them.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::failure::Failure;
use super::road::Way;
use crate::queue::{Lease, LeaseError, Queue};
use crate::random::Random;
use crate::retry::{Backoff, Class, Classify};

/// What became of the items that were taken from a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Served {
    /// Items that came out of the pipeline and were acknowledged.
    pub done: u64,
    /// Items that went back into the queue, to be taken again.
    pub returned: u64,
    /// Items that went among the dead letters because they would fail again.
    pub dead: u64,
    /// Items whose lease had run out, or whose queue could not keep what became of them; they come again.
    pub unheard: u64,
}

/// What became of one item.
enum End {
    Done,
    Returned,
    Dead,
}

/// Serves a queue until it is closed and nothing can come any more, or until the pipeline takes nothing more.
pub(super) async fn serve<In, Out>(way: Arc<dyn Way<In, Out>>, queue: &Queue<In>, again: Backoff) -> Served
where
    In: Clone + Send + Sync + 'static,
    Out: Send + 'static,
{
    let (mut random, mut served) = (Random::unpredictable(), Served::default());
    let mut tasks = JoinSet::new();
    while let Some(lease) = queue.take().await {
        while let Some(end) = tasks.try_join_next() {
            served.count(end);
        }
        // An item is taken before there is a credit, so that an empty queue keeps no credit from others. Dropped with
        // this future, it goes back.
        let credit = match lease.with_heartbeat(way.gate().credit()).await {
            Ok(Ok(credit)) => credit,
            Ok(Err(_)) => break,
            Err(_) => {
                served.unheard += 1;
                continue;
            }
        };
        let left = lease.ticket().deadline.map(|deadline| deadline.saturating_sub(queue.now()));
        let deadline = left.and_then(|left| Instant::now().checked_add(left));
        let walk = way.clone().walk(lease.clone(), deadline, Some(credit));
        let wait = again.delay(lease.attempt(), &mut random);
        tasks.spawn(async move {
            let outcome = lease.with_heartbeat(walk).await?;
            settle(lease, outcome.map(drop), wait).await
        });
    }
    while let Some(end) = tasks.join_next().await {
        served.count(end);
    }
    served
}

/// Says to the queue what an outcome means for the item.
async fn settle<In>(
    lease: Lease<In>,
    outcome: Result<(), Failure>,
    wait: Duration,
) -> Result<End, LeaseError> {
    let Err(failure) = outcome else { return lease.ack().await.map(|()| End::Done) };
    if matches!(failure, Failure::Cut { .. } | Failure::Closed) {
        return lease.nack(Duration::ZERO).await.map(|()| End::Returned);
    }
    match failure.class() {
        Class::Permanent => lease.dead_letter(failure.to_string()).await.map(|()| End::Dead),
        Class::Transient => lease.nack(wait).await.map(|()| End::Returned),
        Class::Overload { retry_after } => {
            lease.nack(retry_after.unwrap_or_default() + wait).await.map(|()| End::Returned)
        }
    }
}

impl Served {
    /// A task that was aborted or panicked has dropped its lease, which gives the item back.
    fn count(&mut self, end: Result<Result<End, LeaseError>, tokio::task::JoinError>) {
        let count = match end {
            Ok(Ok(End::Done)) => &mut self.done,
            Ok(Ok(End::Dead)) => &mut self.dead,
            Ok(Err(_)) => &mut self.unheard,
            Ok(Ok(End::Returned)) | Err(_) => &mut self.returned,
        };
        *count += 1;
    }
}
