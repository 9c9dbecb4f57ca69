//! Several models on the same compute threads: each computes alone, and all get the same time.
//!
//! Two models that compute at once on the same cores take each other's caches, and each of their steps waits for threads
//! that the other one holds. So they take turns, a step at a time. Whoever has had less time goes first, and goes on until
//! it has had as much as those who wait: short steps of one model make up for long ones of another. Time that a model did
//! not want is not saved up for it.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use protocol::status::{DeviceStatus, ModelStatus};
use tensor::Cores;

/// What models compute on, one at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its name: `cpu0`.
    pub name: String,
    /// Threads that compute.
    pub threads: usize,
    /// The processors that its threads stay on; none where they may go anywhere.
    pub cores: Cores,
}

impl Default for Device {
    fn default() -> Self {
        Self { name: "cpu0".to_owned(), threads: 1, cores: Cores::default() }
    }
}

/// Where models take turns. A clone is the same place.
#[derive(Clone, Debug, Default)]
pub struct Turns {
    inside: Arc<Inside>,
}

#[derive(Debug, Default)]
struct Inside {
    device: Device,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    seats: Vec<Times>,
    /// Whose turn it is.
    owner: Option<usize>,
    /// What all models together have had.
    busy: Duration,
}

/// What one model has had.
#[derive(Clone, Copy, Debug, Default)]
struct Times {
    used: Duration,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// It has nothing to do.
    #[default]
    Resting,
    /// It waits for its turn.
    Waiting,
    /// It computes, or is about to go on.
    Working,
    /// There is no such model any more.
    Gone,
}

/// One model's claim to turns.
#[derive(Debug)]
pub struct Seat {
    turns: Turns,
    index: usize,
}

impl Turns {
    /// Turns on a device.
    pub fn on(device: Device) -> Self {
        Self { inside: Arc::new(Inside { device, ..Inside::default() }) }
    }

    /// What turns are taken on.
    pub fn device(&self) -> &Device {
        &self.inside.device
    }

    /// The device, with one model on it.
    pub(crate) fn status(&self, model: &ModelStatus) -> DeviceStatus {
        let Device { name, threads, cores } = self.device();
        DeviceStatus {
            name: name.clone(),
            threads: *threads as u64,
            cores: cores.to_string(),
            models: 1,
            queued: model.queued,
            running: model.running,
            memory_bytes: model.memory.total(),
            busy_seconds: self.lock().busy.as_secs_f64(),
        }
    }

    /// A claim for one more model.
    pub fn seat(&self) -> Seat {
        let mut state = self.lock();
        let index = state.seats.iter().position(|times| times.stage == Stage::Gone).unwrap_or_else(|| {
            state.seats.push(Times::default());
            state.seats.len() - 1
        });
        state.seats[index] = Times::default();
        Seat { turns: self.clone(), index }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.inside.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether it is the turn of `index`: nobody else computes, and nobody who waits has had less.
    fn is_turn_of(&self, index: usize) -> bool {
        let used = self.seats[index].used;
        let waiting = self
            .seats
            .iter()
            .enumerate()
            .filter(|(other, times)| *other != index && times.stage == Stage::Waiting);
        self.owner.is_none_or(|owner| owner == index)
            && waiting.map(|(_, times)| times.used).min().is_none_or(|least| used <= least)
    }

    /// Whoever comes back has had no less than the one of the others that has had the least.
    fn join(&mut self, index: usize) {
        let others = self.seats.iter().filter(|times| matches!(times.stage, Stage::Waiting | Stage::Working));
        let least = others.map(|times| times.used).min().unwrap_or_default();
        let own = &mut self.seats[index];
        own.used = own.used.max(least);
    }
}

impl Seat {
    /// Waits for one turn, after which the model rests. Blocks the thread.
    pub fn turn(&self) -> Turn<'_> {
        Turn { seat: self, began: self.begin() }
    }

    /// Waits until it is this model's turn, and keeps it until the model rests or another one that waits has had less time.
    /// Blocks the thread. Tells when the turn began.
    pub(crate) fn begin(&self) -> Instant {
        let mut state = self.turns.lock();
        if state.seats[self.index].stage == Stage::Resting {
            state.join(self.index);
        }
        while !state.is_turn_of(self.index) {
            state.seats[self.index].stage = Stage::Waiting;
            if state.owner == Some(self.index) {
                state.owner = None;
                self.turns.inside.changed.notify_all();
            }
            state = self.turns.inside.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.seats[self.index].stage = Stage::Working;
        state.owner = Some(self.index);
        Instant::now()
    }

    /// Counts the time of a step that has ended. One of a turn that was ended before it counts nothing: it has computed
    /// beside others.
    pub(crate) fn end(&self, began: Instant) {
        let mut state = self.turns.lock();
        if state.owner == Some(self.index) {
            let took = began.elapsed();
            state.seats[self.index].used += took;
            state.busy += took;
        }
    }

    /// Keeps the calling thread on the processors of the device.
    pub(crate) fn enter(&self) {
        let Device { name, cores, .. } = self.turns.device();
        if let Err(error) = cores.enter() {
            tracing::warn!(device = name, %cores, %error, "a thread may not stay on these processors");
        }
    }

    /// Says that nothing is left to do for now, or nothing comes of it, so that others need not wait for this model.
    pub fn rest(&self) {
        let mut state = self.turns.lock();
        state.seats[self.index].stage = Stage::Resting;
        if state.owner == Some(self.index) {
            state.owner = None;
        }
        drop(state);
        self.turns.inside.changed.notify_all();
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.rest();
        self.turns.lock().seats[self.index].stage = Stage::Gone;
    }
}

/// One turn of a model; dropping it ends the turn, also in a panic.
#[derive(Debug)]
pub struct Turn<'a> {
    seat: &'a Seat,
    began: Instant,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.seat.end(self.began);
        self.seat.rest();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    /// What a model has had, made up instead of measured.
    fn had(seat: &Seat, used: Duration) {
        seat.turns.lock().seats[seat.index].used += used;
    }

    #[test]
    fn one_at_a_time_and_whoever_had_less_goes_on() {
        let turns = Turns::default();
        let (short, long) = (turns.seat(), turns.seat());
        let (order, ran) = mpsc::channel();
        short.begin();
        let waiting = thread::spawn({
            let (turns, order) = (turns.clone(), order.clone());
            move || {
                long.begin();
                order.send("long").unwrap();
                had(&long, Duration::from_secs(1000));
                long.begin();
                order.send("long again").unwrap();
                drop((long, turns));
            }
        });
        while turns.lock().seats[1].stage != Stage::Waiting {
            thread::yield_now();
        }
        // It has had nothing more than the one that waits, so it goes on; then it has, and hands over.
        order.send("short").unwrap();
        short.begin();
        had(&short, Duration::from_secs(600));
        order.send("short again").unwrap();
        short.begin();
        order.send("short has less").unwrap();
        had(&short, Duration::from_secs(600));
        short.rest();
        waiting.join().unwrap();
        let order: Vec<&str> = ran.try_iter().collect();
        assert_eq!(order, ["short", "short again", "long", "short has less", "long again"]);
    }

    #[test]
    fn who_rests_saves_nothing_up_and_a_panic_ends_the_turn() {
        let turns = Turns::default();
        let (busy, late) = (turns.seat(), turns.seat());
        busy.begin();
        had(&busy, Duration::from_secs(50));
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            busy.rest();
            let _turn = late.turn();
            panic!("in the middle of a turn");
        }));
        assert!(panicked.is_err());
        busy.begin();
        late.turns.lock().join(late.index);
        assert!(turns.lock().seats[1].used >= Duration::from_secs(50));
    }
}
