//! The tasks of a batcher: executors that serve batches, and a timekeeper while something waits for a moment.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep_until};

use super::gather::{Entry, Executors, Lane};
use super::{BatchFailure, Shared, State, Waiting};
use crate::pipeline::stage::message;
use crate::retry::{Class, Classify};
use crate::work::StageError;

/// Items that are served together.
type Group<I, O, E> = Vec<Entry<Waiting<I, O, E>>>;

/// Adds an item and sees to it that somebody takes it.
pub(super) fn put<I, O, E>(shared: &Arc<Shared<I, O, E>>, lane: Lane, entry: Entry<Waiting<I, O, E>>) -> u64
where
    I: Send + 'static,
    O: Send + 'static,
    E: StageError,
{
    let mut state = shared.state();
    let now = entry.arrived;
    let id = state.gather.push(lane, entry);
    staff(shared, &mut state, now);
    id
}

/// Sends what waits for others on its way, because no others come any more.
pub(super) fn hurry<I, O, E>(shared: &Arc<Shared<I, O, E>>)
where
    I: Send + 'static,
    O: Send + 'static,
    E: StageError,
{
    let mut state = shared.state();
    state.gather.hurry();
    staff(shared, &mut state, Instant::now());
}

/// Starts what is missing: executors, or a timekeeper for what can wait.
fn staff<I, O, E>(shared: &Arc<Shared<I, O, E>>, state: &mut State<I, O, E>, now: Instant)
where
    I: Send + 'static,
    O: Send + 'static,
    E: StageError,
{
    let Some(next) = start_executors(shared, state, now) else { return };
    match state.alarm {
        None => {
            state.alarm = Some(next);
            tokio::spawn(keep_time(shared.clone()));
        }
        Some(alarm) if next < alarm => shared.earlier.notify_one(),
        Some(_) => {}
    }
}

/// Starts an executor for every batch that cannot wait, and one if there is an idle one. Answers when to look again,
/// unless an executor will do so when it is done.
fn start_executors<I, O, E>(
    shared: &Arc<Shared<I, O, E>>,
    state: &mut State<I, O, E>,
    now: Instant,
) -> Option<Instant>
where
    I: Send + 'static,
    O: Send + 'static,
    E: StageError,
{
    let most = shared.rules.most_executors;
    while state.executors < most
        && let Some(batch) = state.gather.leave(now, Executors::Busy)
    {
        state.executors += 1;
        tokio::spawn(execute(shared.clone(), Some(batch)));
    }
    let executors = if state.executors < shared.rules.executors { Executors::Idle } else { Executors::Busy };
    let next = state.gather.next_leave(executors).filter(|_| state.executors < most)?;
    if next > now {
        return Some(next);
    }
    // The idle executor takes its batch once it runs, so that what arrives together leaves together.
    state.executors += 1;
    tokio::spawn(execute(shared.clone(), None));
    None
}

/// Wakes up whenever something is due, as long as anything waits.
async fn keep_time<I, O, E>(shared: Arc<Shared<I, O, E>>)
where
    I: Send + 'static,
    O: Send + 'static,
    E: StageError,
{
    loop {
        let next = {
            let mut state = shared.state();
            let next = start_executors(&shared, &mut state, Instant::now());
            state.alarm = next;
            next
        };
        let Some(next) = next else { return };
        tokio::select! {
            () = sleep_until(next) => {}
            () = shared.earlier.notified() => {}
        }
    }
}

/// Serves batches until none leaves any more.
async fn execute<I, O, E>(shared: Arc<Shared<I, O, E>>, mut batch: Option<Group<I, O, E>>)
where
    I: Send + 'static,
    O: Send + 'static,
    E: StageError,
{
    loop {
        let next = batch.take().or_else(|| {
            let mut state = shared.state();
            let now = Instant::now();
            let is_needed = state.executors <= shared.rules.executors;
            let next = state.gather.leave(now, if is_needed { Executors::Idle } else { Executors::Busy });
            if next.is_none() {
                state.executors -= 1;
                staff(&shared, &mut state, now);
            }
            next
        });
        let Some(batch) = next else { return };
        let left = Instant::now();
        for entry in &batch {
            shared.waits.record(left.saturating_duration_since(entry.arrived));
        }
        serve(&shared, batch).await;
    }
}

/// Serves a batch, in parts if it fails as a whole, and tells everybody.
async fn serve<I, O, E>(shared: &Shared<I, O, E>, batch: Group<I, O, E>)
where
    I: Send + 'static,
    O: Send + 'static,
    E: StageError,
{
    let mut parts = vec![batch];
    while let Some(part) = parts.pop() {
        let mut part = wanted(shared, part);
        if part.is_empty() {
            continue;
        }
        let copy = shared.rules.copy.filter(|_| part.len() > 1);
        let items = part.iter_mut().filter_map(|entry| match copy {
            Some(copy) => entry.item.item.as_ref().map(copy),
            None => entry.item.item.take(),
        });
        let outcome = attempt(shared, items.collect()).await;
        let is_permanent = outcome.as_ref().is_err_and(|failure| failure.class() == Class::Permanent);
        if copy.is_some() && is_permanent {
            shared.state().counts.bisected += 1;
            let back = part.split_off(part.len() / 2);
            parts.extend([back, part]);
        } else {
            tell(shared, part, outcome);
        }
    }
}

/// Those of a batch whose callers are there and whose deadlines have not passed.
fn wanted<I, O, E>(shared: &Shared<I, O, E>, batch: Group<I, O, E>) -> Group<I, O, E> {
    let now = Instant::now();
    let is_late = |entry: &Entry<Waiting<I, O, E>>| entry.deadline.is_some_and(|deadline| deadline <= now);
    // Nearly always all of them are, and then none need be moved.
    if !batch.iter().any(|entry| is_late(entry) || entry.item.reply.is_closed()) {
        return batch;
    }
    let (late, rest): (Group<I, O, E>, _) = batch.into_iter().partition(is_late);
    if !late.is_empty() {
        tell(shared, late, Err(BatchFailure::Expired));
    }
    rest.into_iter().filter(|entry| !entry.item.reply.is_closed()).collect()
}

/// Serves items once: an outcome for each, or a failure that is of all.
async fn attempt<I, O, E>(
    shared: &Shared<I, O, E>,
    items: Vec<I>,
) -> Result<Vec<Result<O, E>>, BatchFailure<E>> {
    let (count, began) = (items.len(), Instant::now());
    let serve = AssertUnwindSafe(async { (shared.serve)(items).await }).catch_unwind();
    let served = tokio::select! {
        biased;
        () = shared.cut() => return Err(BatchFailure::Cut),
        served = serve => served,
    };
    let took = began.elapsed();
    shared.runs.record(took);
    let mut state = shared.state();
    state.gather.ran(took);
    state.counts.batches += 1;
    drop(state);
    match served {
        Ok(Ok(outcomes)) if outcomes.len() == count => Ok(outcomes),
        Ok(Ok(outcomes)) => Err(BatchFailure::Miscounted { items: count, outcomes: outcomes.len() }),
        Ok(Err(error)) => Err(BatchFailure::Failed { error: Arc::new(error) }),
        Err(panic) => Err(BatchFailure::Panicked { message: message(panic.as_ref()).into() }),
    }
}

/// Gives everybody the outcome of their item.
pub(super) fn tell<I, O, E>(
    shared: &Shared<I, O, E>,
    group: Group<I, O, E>,
    outcome: Result<Vec<Result<O, E>>, BatchFailure<E>>,
) {
    let items = group.len() as u64;
    let mut errors = 0;
    let failed = |error| BatchFailure::Failed { error: Arc::new(error) };
    let outcomes: Box<dyn Iterator<Item = Result<O, BatchFailure<E>>>> = match outcome {
        Ok(outcomes) => Box::new(outcomes.into_iter().map(|outcome| outcome.map_err(failed))),
        Err(failure) => Box::new(std::iter::repeat_with(move || Err(failure.clone()))),
    };
    // Given back together, since each time takes a lock and calls whoever waits for a place.
    let mut places: Option<OwnedSemaphorePermit> = None;
    for (entry, outcome) in group.into_iter().zip(outcomes) {
        let Waiting { reply, place, .. } = entry.item;
        errors += u64::from(outcome.is_err());
        // A caller that has gone meanwhile does not want to know.
        let _ = reply.send(outcome);
        match &mut places {
            Some(places) => places.merge(place),
            None => places = Some(place),
        }
    }
    drop(places);
    let mut state = shared.state();
    state.counts.items += items;
    state.counts.errors += errors;
}
