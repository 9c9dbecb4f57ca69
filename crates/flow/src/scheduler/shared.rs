//! The book behind its lock, and those who wait for its answers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::task::AbortHandle;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::book::{Book, Lost, Placement};
use super::waiting::JobId;
use super::{InventoryError, Pressure, Reading, Reservation, ScheduleError, Watermarks};
use crate::metrics::Histogram;

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) state: Mutex<State>,
    pub(super) epoch: Instant,
    pub(super) waits: Histogram,
    /// Told when nothing waits and nothing runs.
    pub(super) idle: Notify,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) book: Book,
    pub(super) replies: HashMap<JobId, Asked>,
    pub(super) pressure: Pressure,
    /// How many may start until the next reading of the pressure.
    pub(super) allowance: usize,
    pub(super) watch: Option<AbortHandle>,
    pub(super) is_open: bool,
}

/// Someone who waits for an answer.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) since: Instant,
    pub(super) reply: oneshot::Sender<Result<Reservation, ScheduleError>>,
}

/// What is to be told to someone who waits.
pub(super) type Answer = (Asked, Result<Placement, ScheduleError>);

impl State {
    /// Starts what can be started.
    fn start(&mut self, now: Duration) -> Vec<Answer> {
        let started = self.book.start(now, self.allowance);
        if self.pressure != Pressure::None {
            self.allowance = self.allowance.saturating_sub(started.len());
        }
        let granted = started.into_iter();
        granted.filter_map(|granted| Some((self.replies.remove(&granted.job)?, Ok(granted)))).collect()
    }

    pub(super) fn is_idle(&self) -> bool {
        self.book.running() == 0 && self.book.waiting() == 0
    }

    /// What to tell those who can never run any more.
    fn refuse(&mut self, lost: Vec<Lost>) -> Vec<Answer> {
        let refused = lost.into_iter();
        refused.filter_map(|(id, why)| Some((self.replies.remove(&id)?, Err(why.into())))).collect()
    }
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn now(&self) -> Duration {
        self.epoch.elapsed()
    }

    /// Changes something, starts what can be started then, and tells everyone concerned.
    pub(super) fn change(self: &Arc<Self>, change: impl FnOnce(&mut State, Duration) -> Vec<Answer>) {
        let mut state = self.lock();
        let now = self.now();
        let mut answers = change(&mut state, now);
        answers.extend(state.start(now));
        // Nobody may be told under the lock: who does not listen any more drops what it is given, which takes the lock.
        while !answers.is_empty() {
            drop(state);
            let unwanted: Vec<Placement> =
                answers.into_iter().filter_map(|answer| self.tell(answer)).collect();
            state = self.lock();
            unwanted.iter().for_each(|placement| state.book.give_back(placement));
            answers = if unwanted.is_empty() { Vec::new() } else { state.start(self.now()) };
        }
        if state.is_idle() {
            self.idle.notify_waiters();
        }
    }

    /// Answers what was granted to someone who has gone meanwhile.
    fn tell(self: &Arc<Self>, (asked, answer): Answer) -> Option<Placement> {
        let waited = asked.since.elapsed();
        let answer = answer.map(|placement| Reservation::new(Arc::clone(self), placement));
        match asked.reply.send(answer) {
            Ok(()) => {
                self.waits.record(waited);
                None
            }
            Err(unheard) => unheard.ok().and_then(Reservation::into_placement),
        }
    }

    pub(super) fn review(
        self: &Arc<Self>,
        review: impl FnOnce(&mut Book) -> Result<Vec<Lost>, InventoryError>,
    ) -> Result<(), InventoryError> {
        let mut outcome = Ok(());
        self.change(|state, _| match review(&mut state.book) {
            Ok(lost) => state.refuse(lost),
            Err(error) => {
                outcome = Err(error);
                Vec::new()
            }
        });
        outcome
    }
}

pub(super) async fn watch(
    shared: Weak<Shared>,
    marks: Watermarks,
    mut probe: impl FnMut() -> Reading + Send,
) {
    let mut readings = interval(marks.every);
    readings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        readings.tick().await;
        let Some(shared) = shared.upgrade() else { return };
        let reading = probe();
        shared.change(|state, _| {
            state.pressure = marks.judge(state.pressure, reading);
            state.allowance = state.pressure.allowance();
            Vec::new()
        });
    }
}
