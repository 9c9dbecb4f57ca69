//! A lock with a bell: whoever leaves it answers the bell, so that whoever rings need not come in.
//!
//! A buffer is given back wherever its last owner drops it, also while the ladder's lock is held, by the same thread. That
//! thread cannot wait for the lock, and need not: it rings. Whoever holds the lock looks at the bell after letting go, so a
//! ring is answered by the one who rang or by whoever was inside, and never by nobody.

use std::ops::{Deref, DerefMut};

use super::sync::{AtomicBool, Mutex, MutexGuard, Ordering, lock, try_lock};

/// A lock with a bell.
pub(crate) struct Bell<T> {
    state: Mutex<T>,
    rung: AtomicBool,
    answer: fn(&mut T),
}

impl<T> Bell<T> {
    /// `answer` is what is done when the bell has been rung.
    pub(crate) fn new(state: T, answer: fn(&mut T)) -> Self {
        Self { state: Mutex::new(state), rung: AtomicBool::new(false), answer }
    }

    /// Comes in, waiting for whoever is inside.
    pub(crate) fn enter(&self) -> Inside<'_, T> {
        Inside { bell: self, guard: Some(lock(&self.state)) }
    }

    /// Rings: the bell is answered soon, here or by whoever is inside.
    pub(crate) fn ring(&self) {
        self.rung.store(true, Ordering::SeqCst);
        self.look();
    }

    /// Answers the bell unless somebody is inside, who will.
    fn look(&self) {
        while self.rung.load(Ordering::SeqCst) {
            let Some(mut state) = try_lock(&self.state) else { return };
            if self.rung.swap(false, Ordering::SeqCst) {
                (self.answer)(&mut state);
            }
        }
    }
}

/// The state, while nobody else is inside.
pub(crate) struct Inside<'a, T> {
    bell: &'a Bell<T>,
    guard: Option<MutexGuard<'a, T>>,
}

impl<T> Drop for Inside<'_, T> {
    fn drop(&mut self) {
        self.guard = None;
        self.bell.look();
    }
}

impl<T> Deref for Inside<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.guard.as_deref().expect("the guard is there until the end")
    }
}

impl<T> DerefMut for Inside<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.guard.as_deref_mut().expect("the guard is there until the end")
    }
}
