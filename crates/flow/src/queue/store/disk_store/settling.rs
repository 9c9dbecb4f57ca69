//! Who waits for what to be on the disk.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use super::{Kept, Position, Shared, StoreError, Usage, log};
use crate::queue::store::record::Kind;

/// How many runs of refused positions are remembered. Nobody asks for one after so many more were refused; if somebody
/// did, he would be told that his was refused too.
const REFUSALS: usize = 4096;

/// What the callers of a store and its writer share.
pub(super) struct State {
    /// Records that wait to be written.
    pub(super) waiting: Vec<u8>,
    pub(super) usage: Usage,
    /// Positions below this one were given out.
    noted: u64,
    /// Positions below this one have been taken over by the writer.
    begun: u64,
    /// Positions below this one are settled or refused.
    decided: u64,
    /// Those of them that were refused for want of room, in order.
    refused: VecDeque<Range<u64>>,
    /// Positions below this one are no more known apart.
    forgotten: u64,
    /// How many were told of their notes when the last group was written.
    told: u64,
    failed: Option<StoreError>,
    waiters: BTreeMap<(u64, u64), Waker>,
    next_waiter: u64,
    phase: Phase,
}

/// What the writer is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Busy,
    /// Asleep until there is something to do.
    Idle,
    /// Asleep for a moment, until all have come that are likely to.
    Gathering,
    Stopping,
}

impl State {
    pub(super) fn new(usage: Usage) -> Self {
        Self {
            waiting: Vec::new(),
            usage,
            // The position 0 stands for what the store held when it was opened.
            noted: 1,
            begun: 1,
            decided: 1,
            refused: VecDeque::new(),
            forgotten: 0,
            told: 0,
            failed: None,
            waiters: BTreeMap::new(),
            next_waiter: 0,
            phase: Phase::Busy,
        }
    }

    /// The position of a record that was just added to those that wait.
    pub(super) fn note(&mut self) -> Position {
        self.noted += 1;
        Position(self.noted - 1)
    }

    /// Whether nobody waits.
    #[cfg(test)]
    pub(super) fn waiters_are_gone(&self) -> bool {
        self.waiters.is_empty()
    }

    pub(super) fn has_not_failed(&self) -> Result<(), StoreError> {
        self.failed.clone().map_or(Ok(()), Err)
    }

    /// Whether the writer sleeps and has to be woken.
    pub(super) fn is_wanted(&self) -> bool {
        self.phase == Phase::Idle || (self.phase == Phase::Gathering && !self.expects_more())
    }

    /// Whether more notes are likely to come at once: their makers have just been told of their last ones.
    pub(super) fn expects_more(&self) -> bool {
        self.came() < self.told
    }

    /// How many notes came since the last group was begun.
    fn came(&self) -> u64 {
        self.noted - self.begun
    }

    /// Expects nobody any more; answers whether most of those came who were expected.
    pub(super) fn give_up_gathering(&mut self) -> bool {
        2 * self.came() >= std::mem::take(&mut self.told)
    }

    /// Whether the writer sleeps for a moment and there is a reason to.
    pub(super) fn is_gathering(&self) -> bool {
        self.phase == Phase::Gathering && self.expects_more()
    }

    pub(super) fn gather(&mut self) {
        if self.phase == Phase::Busy {
            self.phase = Phase::Gathering;
        }
    }

    pub(super) fn stop(&mut self) {
        self.phase = Phase::Stopping;
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.phase == Phase::Stopping
    }

    /// Gives the writer what waits, in exchange for an empty buffer; false if nothing waits.
    pub(super) fn begin_group(&mut self, frames: &mut Vec<u8>) -> bool {
        if self.waiting.is_empty() {
            return false;
        }
        std::mem::swap(&mut self.waiting, frames);
        (self.begun, self.told) = (self.noted, 0);
        true
    }

    /// The writer is about to sleep, unless it should end.
    pub(super) fn fall_asleep(&mut self) {
        if self.phase == Phase::Busy {
            self.phase = Phase::Idle;
        }
    }

    /// The writer is awake.
    pub(super) fn wake_up(&mut self) {
        if self.phase != Phase::Stopping {
            self.phase = Phase::Busy;
        }
    }

    /// Tells those who wait what became of the group that was begun last.
    pub(super) fn publish(shared: &Shared, kept: Kept, frames: &[u8], usage: Usage) {
        let mut state = shared.state();
        state.usage = usage;
        let group = state.decided..state.begun;
        match kept {
            Kept::All => {}
            Kept::Nothing => state.refuse(group.clone()),
            Kept::AllButItems => {
                let items =
                    group.clone().zip(log::walk(frames)).filter(|(_, (_, kind))| *kind == Kind::Item as u8);
                items.for_each(|(position, _)| state.refuse(position..position + 1));
            }
        }
        state.decided = group.end;
        let later = state.waiters.split_off(&(group.end, 0));
        let ready = std::mem::replace(&mut state.waiters, later);
        state.told = ready.len() as u64;
        drop(state);
        ready.into_values().for_each(Waker::wake);
    }

    /// Tells everybody that nothing more will be settled. The first failure is the one that counts.
    pub(super) fn publish_failure(shared: &Shared, error: StoreError) {
        let mut state = shared.state();
        state.failed.get_or_insert(error);
        let waiters = std::mem::take(&mut state.waiters);
        drop(state);
        waiters.into_values().for_each(Waker::wake);
    }

    fn refuse(&mut self, positions: Range<u64>) {
        match self.refused.back_mut() {
            Some(last) if last.end == positions.start => last.end = positions.end,
            _ => self.refused.push_back(positions),
        }
        if self.refused.len() > REFUSALS
            && let Some(oldest) = self.refused.pop_front()
        {
            self.forgotten = oldest.end;
        }
    }

    /// What became of a position, once that is known.
    fn verdict(&self, position: u64, place: &str) -> Option<Result<(), StoreError>> {
        if position >= self.decided {
            return self.failed.clone().map(Err);
        }
        let at = self.refused.partition_point(|run| run.end <= position);
        let is_refused = self.refused.get(at).is_some_and(|run| run.contains(&position));
        Some(if is_refused || position < self.forgotten {
            Err(StoreError::Full { place: place.to_owned() })
        } else {
            Ok(())
        })
    }
}

/// Completes when a position is settled, or never will be.
pub(super) struct Settling<'a> {
    shared: &'a Shared,
    position: u64,
    /// Its number among those who wait, once it does.
    waiter: Option<u64>,
}

impl<'a> Settling<'a> {
    pub(super) fn new(shared: &'a Shared, position: Position) -> Self {
        Self { shared, position: position.0, waiter: None }
    }
}

impl Future for Settling<'_> {
    type Output = Result<(), StoreError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let shared = self.shared;
        let mut state = shared.state();
        if let Some(verdict) = state.verdict(self.position, &shared.place) {
            // Whoever decided it has taken the waiter out too.
            self.waiter = None;
            return Poll::Ready(verdict);
        }
        let number = self.waiter.unwrap_or(state.next_waiter);
        if self.waiter.is_none() {
            state.next_waiter += 1;
            self.waiter = Some(number);
        }
        state.waiters.insert((self.position, number), cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Settling<'_> {
    fn drop(&mut self) {
        if let Some(number) = self.waiter {
            self.shared.state().waiters.remove(&(self.position, number));
        }
    }
}
