//! The gate explored by loom: the very file `gate.rs`, with loom's atomics, cells and parking in place of std's.
//!
//! Loom runs a test under every order of steps with few forced switches and fails if two threads touch a cell without
//! order between them, or if all threads wait, which is what a lost wake-up comes to.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use loom::sync::atomic::AtomicUsize;

mod sync {
    //! Loom's versions. Spinning is one look, so that every path to parking is explored.

    use std::sync::atomic::Ordering::Relaxed;

    pub(super) use loom::sync::atomic::{AtomicU64, AtomicUsize};
    pub(super) use loom::thread::park;

    pub(super) type Shared<T> = loom::cell::UnsafeCell<T>;

    loom::lazy_static! {
        /// Loom tries another order only of steps that touch the same thing. Its `unpark` touches nothing, and passes
        /// on all that the waking thread has done, so a missing `Release` just before it would never show. Touching
        /// this before waking and after looking makes the two try both orders; relaxed, it orders nothing itself.
        static ref TURNS: AtomicUsize = AtomicUsize::new(0);
    }

    #[derive(Clone)]
    pub(super) struct Thread(loom::thread::Thread);

    impl From<&loom::thread::Thread> for Thread {
        fn from(thread: &loom::thread::Thread) -> Self {
            Self(thread.clone())
        }
    }

    impl Thread {
        pub(super) fn unpark(&self) {
            TURNS.fetch_add(1, Relaxed);
            self.0.unpark();
        }
    }

    pub(super) fn current() -> Thread {
        Thread::from(&loom::thread::current())
    }

    pub(super) fn spin_until(ready: impl Fn() -> bool) -> bool {
        let is_ready = ready();
        TURNS.load(Relaxed);
        is_ready
    }
}

#[expect(
    clippy::duplicate_mod,
    reason = "the point is to compile the same file against two kinds of atomics"
)]
#[path = "../gate.rs"]
mod gate;

/// A gate whose workers count their jobs, with no ordering of their own.
struct Counted {
    caller: gate::Caller<usize>,
    counts: Vec<Arc<AtomicUsize>>,
    ended: Arc<AtomicUsize>,
}

impl Counted {
    fn start(workers: usize) -> Self {
        let mut caller = gate::Caller::new();
        let counts: Vec<_> = (0..workers).map(|_| Arc::new(AtomicUsize::new(0))).collect();
        let ended = Arc::new(AtomicUsize::new(0));
        for count in &counts {
            let enlisted = caller.enlist(|mut worker: gate::Worker<usize>| {
                let (count, ended) = (Arc::clone(count), Arc::clone(&ended));
                let serve = move || {
                    while worker.serve(|job| {
                        count.fetch_add(job, Relaxed);
                    }) {}
                    ended.fetch_add(1, Relaxed);
                };
                Ok::<_, ()>(sync::Thread::from(loom::thread::spawn(serve).thread()))
            });
            assert!(enlisted.is_ok());
        }
        Self { caller, counts, ended }
    }

    /// Stops the workers and waits for them. They are not joined: loom's `join` takes a wake-up meant for `park` for
    /// its own.
    fn stop(mut self) {
        self.caller.stop();
        while self.ended.load(Relaxed) < self.counts.len() {
            loom::thread::yield_now();
        }
    }

    /// Every worker has done as many jobs, and the caller sees their effects.
    fn assert_counts(&self, jobs: usize) {
        for count in &self.counts {
            assert_eq!(count.load(Relaxed), jobs, "the caller returned early, or a worker did a job twice");
        }
    }
}

/// Runs `rounds` rounds over `workers` workers and stops them.
fn explore(workers: usize, rounds: usize, forced_switches: usize) {
    model(forced_switches, move || {
        let mut counted = Counted::start(workers);
        for round in 1..=rounds {
            let outcome = counted.caller.round(1, || round);
            assert_eq!(outcome.ok(), Some(round));
            counted.assert_counts(round);
        }
        counted.stop();
    });
}

/// Runs `test` in every order of steps in which a thread that could go on is made to wait at most so many times. Without
/// a bound it takes minutes, and faults planted in `gate.rs` were all found with two.
fn model(forced_switches: usize, test: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(forced_switches);
    builder.check(test);
}

#[test]
fn one_worker_with_up_to_four_forced_switches() {
    explore(1, 1, 4);
}

#[test]
fn one_worker_over_rounds_with_up_to_three_forced_switches() {
    explore(1, 3, 3);
}

#[test]
fn two_workers_with_up_to_two_forced_switches() {
    explore(2, 1, 2);
}

#[test]
fn a_panic_of_the_caller_waits_for_the_worker() {
    model(3, || {
        let mut counted = Counted::start(1);
        let outcome = counted.caller.round(1, || std::panic::resume_unwind(Box::new("own")));
        assert_eq!(outcome.err().and_then(|payload| payload.downcast_ref::<&str>().copied()), Some("own"));
        counted.assert_counts(1);
        counted.stop();
    });
}
