//! The lock of the exchange, named here so that a model checker can put its own in place.

use std::hint::spin_loop;
use std::thread;
use std::time::Duration;

pub(super) use spin::mutex::{SpinMutex as Mutex, SpinMutexGuard as MutexGuard};

/// So many pauses, about a microsecond, whoever finds the lock taken stays away at first. Less, and what the lock guards goes
/// from core to core with every act; more, and short acts wait for nothing.
const PAUSES: u32 = 16;
/// So often, each time after four times as long, a taken lock is asked for again before others get the processor.
const TRIES: u32 = 4;
/// So often they get it before the thread sleeps.
const YIELDS: u32 = 16;
/// For so long: whoever holds the lock has lost the processor in the middle.
const NAP: Duration = Duration::from_micros(50);

/// Takes a lock that is only ever held for less time than falling asleep and waking up take; giving it back is a store,
/// where a lock that knows its sleepers needs one more atomic instruction. Who finds it taken stays away for a while, in
/// which the other one often does its next act, and the one after that, with all it needs at hand.
///
/// Nothing that such a lock guards is left half-way when a policy or an item panics: the stock is changed last, by
/// moves.
#[inline]
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    match mutex.try_lock() {
        Some(guard) => guard,
        None => lock_patiently(mutex),
    }
}

#[cold]
fn lock_patiently<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    let mut tries: u32 = 0;
    loop {
        match tries {
            ..TRIES => (0..PAUSES << (2 * tries)).for_each(|_| spin_loop()),
            tries if tries < TRIES + YIELDS => thread::yield_now(),
            _ => thread::sleep(NAP),
        }
        if let Some(guard) = mutex.try_lock() {
            return guard;
        }
        tries = tries.saturating_add(1);
    }
}
