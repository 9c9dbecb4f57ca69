//! The threads of an engine: the one that serves, and the one that watches that the model comes back.
//!
//! The loop stands behind a lock that is open while the model or its tower runs. A model that does not come back therefore holds the
//! thread that called it and what it computes with, and nothing else: those are left behind, the model is loaded again, and
//! a new thread goes on. Every sequence is computed again from its tokens, which gives the same bits; whoever waits notices
//! nothing but the time. A thread that comes back after all finds that the loop is not its own any more, and ends.

use std::convert::Infallible;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use models::LoadedModel;
use tensor::KvArena;

use crate::Revive;
use crate::compute::Runner;
use crate::run_loop::{Doing, RunLoop, Shared};

/// How a model that does not come back is dealt with.
pub(crate) struct Care {
    /// After so long it is given up.
    pub(crate) after: Duration,
    pub(crate) revive: Revive<LoadedModel>,
    /// What the files of the model were.
    pub(crate) identity: Option<String>,
}

/// The loop, and which thread it belongs to.
struct Cell {
    state: Mutex<State>,
}

struct State {
    /// Grows when a thread is left behind.
    epoch: u64,
    /// `None` once it has ended.
    run_loop: Option<RunLoop>,
}

/// The threads of an engine.
pub(crate) struct Threads {
    serving: Arc<Mutex<Option<JoinHandle<()>>>>,
    watching: Option<(Sender<Infallible>, JoinHandle<()>)>,
}

impl Cell {
    /// Does something with the loop, if it still is of this epoch.
    fn with<R>(&self, epoch: u64, act: impl FnOnce(&mut RunLoop) -> R) -> Option<R> {
        let mut state = lock(&self.state);
        if state.epoch != epoch {
            return None;
        }
        state.run_loop.as_mut().map(act)
    }

    /// Takes the loop out for good.
    fn take(&self, epoch: u64) -> Option<RunLoop> {
        let mut state = lock(&self.state);
        if state.epoch == epoch { state.run_loop.take() } else { None }
    }

    /// Runs the loop until it ends or is left to another thread.
    fn serve(&self, epoch: u64) -> Option<()> {
        loop {
            match self.with(epoch, RunLoop::proceed)? {
                Doing::Compute(mut runner) => {
                    let ran = runner.run();
                    self.with(epoch, |run_loop| run_loop.settle(ran))?;
                    self.with(epoch, |run_loop| run_loop.take_back(runner))?;
                }
                Doing::Look(mut reading) => {
                    let read = reading.run();
                    self.with(epoch, |run_loop| run_loop.saw(reading, read))?;
                }
                Doing::Looked => {}
                Doing::End => {
                    self.take(epoch)?.end();
                    return Some(());
                }
            }
        }
    }

    /// Starts the thread of an epoch.
    fn start(self: &Arc<Self>, epoch: u64, shared: &Shared) -> io::Result<JoinHandle<()>> {
        let (cell, shared) = (Arc::clone(self), shared.clone());
        let body = move || {
            cell.with(epoch, |run_loop| run_loop.seat.enter());
            if catch_unwind(AssertUnwindSafe(|| cell.serve(epoch))).is_err() {
                shared.meters.died("the engine's thread ended unexpectedly", shared.clock.now());
                drop(cell.take(epoch));
            }
        };
        Builder::new().name("tidegate-engine".to_owned()).spawn(body)
    }
}

impl Threads {
    /// Runs the loop on a thread; with care, another one watches it.
    pub(crate) fn start(run_loop: RunLoop, shared: &Shared, care: Option<Care>) -> io::Result<Self> {
        let state = State { epoch: 0, run_loop: Some(run_loop) };
        let cell = Arc::new(Cell { state: Mutex::new(state) });
        let serving = Arc::new(Mutex::new(Some(cell.start(0, shared)?)));
        let Some(care) = care else { return Ok(Self { serving, watching: None }) };
        let (closing, closed) = mpsc::channel::<Infallible>();
        let watcher = Watcher { cell, shared: shared.clone(), care, serving: Arc::clone(&serving) };
        let body = move || {
            while closed.recv_timeout(watcher.care.after / LOOKS) == Err(RecvTimeoutError::Timeout) {
                watcher.look();
            }
        };
        let watching = Builder::new().name("tidegate-watch".to_owned()).spawn(body)?;
        Ok(Self { serving, watching: Some((closing, watching)) })
    }

    /// Loads the model no more when it does not come back.
    pub(crate) fn stop_watching(&mut self) {
        if let Some((closing, watching)) = self.watching.take() {
            drop(closing);
            // A panic of it has left the engine as it was.
            let _ = watching.join();
        }
    }

    /// Waits for the loop to end, until it is known that the model does not come back.
    pub(crate) fn join(self, is_stuck: impl Fn() -> bool) {
        let Some(serving) = lock(&self.serving).take() else { return };
        while !serving.is_finished() {
            if is_stuck() {
                return;
            }
            std::thread::sleep(PAUSE);
        }
        // A panic of the thread was caught and reported by the thread itself.
        let _ = serving.join();
    }
}

/// How long an engine that is dropped waits before it looks again whether its thread has ended.
const PAUSE: Duration = Duration::from_micros(200);

/// How often the watcher looks in the time after which a model is given up.
const LOOKS: u32 = 8;

struct Watcher {
    cell: Arc<Cell>,
    shared: Shared,
    care: Care,
    serving: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl Watcher {
    fn look(&self) {
        let quiet = self.shared.meters.quiet(self.shared.clock.now());
        if quiet.is_some_and(|quiet| quiet > self.care.after)
            && let Some(epoch) = self.leave_behind()
        {
            match self.revive(epoch) {
                Ok(()) => tracing::warn!("the model was loaded again"),
                Err(reason) => self.give_up(epoch, &reason),
            }
        }
    }

    /// Takes the loop from the thread whose model does not come back. None if the thread does something else.
    fn leave_behind(&self) -> Option<u64> {
        let mut state = match self.cell.state.try_lock() {
            Ok(state) => state,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        let run_loop = state.run_loop.as_mut().filter(|run_loop| run_loop.is_computing())?;
        tracing::error!("a step has not ended for {:?}; the model is loaded again", self.care.after);
        run_loop.leave_behind();
        state.epoch += 1;
        Some(state.epoch)
    }

    fn revive(&self, epoch: u64) -> Result<(), String> {
        let loaded = self.care.revive.load()?;
        if loaded.identity != self.care.identity {
            return Err("its files are not the ones that it was loaded from first".to_owned());
        }
        let pages = self.cell.with(epoch, |run_loop| run_loop.compute.pages()).ok_or("it has ended")?;
        let kv = KvArena::new(loaded.model.shape().kv, pages).map_err(|error| error.to_string())?;
        let tower = loaded.vision.map(|vision| vision.tower);
        let runner = Runner::new(loaded.model, kv);
        self.shared.weights.renew(loaded.streamed);
        self.cell.with(epoch, |run_loop| run_loop.renew(runner, tower)).ok_or("it has ended")?;
        let thread = self.cell.start(epoch, &self.shared).map_err(|error| error.to_string())?;
        // The thread before this one is on its own from here.
        *lock(&self.serving) = Some(thread);
        Ok(())
    }

    fn give_up(&self, epoch: u64, reason: &str) {
        tracing::error!(reason, "the model cannot be loaded again");
        let message = format!("a step has not ended, and the model cannot be loaded again: {reason}");
        self.shared.meters.died(&message, self.shared.clock.now());
        self.cell.take(epoch).into_iter().for_each(RunLoop::end);
    }
}

/// Locks although a panic may have passed through: whoever panicked has left the loop to nobody.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
