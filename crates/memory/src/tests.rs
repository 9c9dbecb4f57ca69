//! What threads meet at, explored by loom: the very files `slot.rs`, `bell.rs` and `signal.rs`, with loom's locks in place
//! of std's. Loom runs a test under every order of steps; that all threads wait, which is what a lost wake-up comes to,
//! fails it.

use loom::future::block_on;
use loom::sync::Arc;
use loom::thread;

mod sync {
    //! Loom's locks.

    pub(super) use loom::sync::atomic::{AtomicBool, Ordering};
    pub(super) use loom::sync::{Condvar, Mutex, MutexGuard};

    pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().expect("no model panics under the lock")
    }

    pub(super) fn try_lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
        mutex.try_lock().ok()
    }

    pub(super) fn wait<'a, T>(condvar: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        condvar.wait(guard).expect("no model panics under the lock")
    }
}

#[expect(clippy::duplicate_mod, reason = "the point is to compile the same file against two kinds of locks")]
#[path = "bell.rs"]
mod bell;
#[expect(clippy::duplicate_mod, reason = "the point is to compile the same file against two kinds of locks")]
#[path = "signal.rs"]
mod signal;
#[expect(clippy::duplicate_mod, reason = "the point is to compile the same file against two kinds of locks")]
#[path = "slot.rs"]
mod slot;

use bell::Bell;
use signal::Signal;
use slot::Slot;

#[test]
fn an_answer_is_heard_by_a_thread_and_by_a_task() {
    loom::model(|| {
        let (first, second) = (Arc::new(Slot::new()), Arc::new(Slot::new()));
        let filled = (Arc::clone(&first), Arc::clone(&second));
        let filler = thread::spawn(move || {
            filled.0.fill(7);
            filled.1.fill(8);
            filled.1.fill(9);
        });
        assert_eq!(block_on(std::future::poll_fn(|context| first.poll(context))), Some(7));
        assert_eq!(second.wait(), Some(8));
        assert!(second.is_done() && second.wait().is_none());
        filler.join().unwrap();
    });
}

/// How often something was given back, and how often that was looked at.
#[derive(Default)]
struct Room {
    seen: usize,
}

#[test]
fn every_ring_is_answered_also_those_from_inside() {
    loom::model(|| {
        let bell = Arc::new(Bell::new(Room::default(), |room: &mut Room| room.seen += 1));
        let other = Arc::clone(&bell);
        let ringer = thread::spawn(move || other.ring());
        {
            let mut room = bell.enter();
            bell.ring();
            room.seen *= 1;
        }
        ringer.join().unwrap();
        // Two rings may be answered as one, and none is left over.
        let seen = bell.enter().seen;
        assert!(seen == 1 || seen == 2, "{seen}");
    });
}

#[test]
fn no_work_is_slept_through() {
    loom::model(|| {
        let signal = Arc::new(Signal::new());
        let work = Arc::new(loom::sync::Mutex::new(0));
        let (raised, put) = (Arc::clone(&signal), Arc::clone(&work));
        let putter = thread::spawn(move || {
            *put.lock().unwrap() += 1;
            raised.raise();
        });
        loop {
            let seen = signal.count();
            if *work.lock().unwrap() > 0 {
                break;
            }
            signal.sleep(seen);
        }
        putter.join().unwrap();
    });
}
