//! What the exchange takes from the standard library, named here so that a model checker can put its own in place.

use std::hint::spin_loop;
use std::sync::PoisonError;

pub(super) use std::sync::{Mutex, MutexGuard};

/// So often, each time after twice as long, a taken lock is asked for again before the thread sleeps.
const TRIES: u32 = 6;

/// Takes a lock that is only ever held for less time than falling asleep and waking up take. Who finds it taken stays
/// away for a while, in which the other one often does its next act, and the one after that, with all it needs at hand.
///
/// Nothing that such a lock guards is left half-way when a policy or an item panics: the stock is changed last, by
/// moves.
#[inline]
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    match mutex.try_lock() {
        Ok(guard) => guard,
        Err(_) => lock_patiently(mutex),
    }
}

#[cold]
fn lock_patiently<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    for tries in 0..TRIES {
        (0..16 << tries).for_each(|_| spin_loop());
        if let Ok(guard) = mutex.try_lock() {
            return guard;
        }
    }
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
