//! What is left to do after something was decided under a lock.

use std::task::Waker;

/// What to do once the lock is free.
pub(super) struct Parting<A> {
    first: Option<Waker>,
    more: Vec<Waker>,
    /// Held so that it is dropped, and with it done, outside of the lock.
    pub(super) aftermath: Option<A>,
}

impl<A> Default for Parting<A> {
    fn default() -> Self {
        Self { first: None, more: Vec::new(), aftermath: None }
    }
}

impl<A> Parting<A> {
    pub(super) fn wake(&mut self, waker: Waker) {
        match self.first {
            None => self.first = Some(waker),
            Some(_) => self.more.push(waker),
        }
    }

    pub(super) fn go(self) {
        self.first.into_iter().chain(self.more).for_each(Waker::wake);
    }
}
