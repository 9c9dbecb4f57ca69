//! The workers of a stage: how many items it works on at once, and who waits for it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::sync::Semaphore;

/// So many seats are no limit.
const UNLIMITED: usize = Semaphore::MAX_PERMITS >> 1;

/// Seats, whose number may change while they are taken. Whoever waits first sits first.
#[derive(Debug)]
pub(super) struct Seats {
    free: Semaphore,
    limit: Mutex<usize>,
    /// Without a limit nobody is counted, so that those who work at once do not write to the same memory.
    is_limited: AtomicBool,
    /// Seats that are to vanish as soon as somebody rises.
    owed: AtomicUsize,
    waiting: AtomicUsize,
}

/// A seat that is taken until this is dropped.
#[derive(Debug)]
pub(super) struct Seat<'a>(&'a Seats);

/// No seat is free, or others wait already.
#[derive(Debug)]
pub(super) struct Full;

impl Seats {
    pub(super) fn unlimited() -> Self {
        Self {
            free: Semaphore::new(UNLIMITED),
            limit: Mutex::new(UNLIMITED),
            is_limited: AtomicBool::new(false),
            owed: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
        }
    }

    /// A seat, if one is free and nobody waits; without a limit nobody needs one.
    pub(super) fn try_take(&self) -> Result<Option<Seat<'_>>, Full> {
        if !self.is_limited.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let permit = self.free.try_acquire().map_err(|_| Full)?;
        permit.forget();
        Ok(Some(Seat(self)))
    }

    /// A seat, when it is this caller's turn.
    pub(super) async fn take(&self) -> Option<Seat<'_>> {
        let _counted = Counted::new(&self.waiting);
        // The semaphore is never closed, so waiting for it does not fail.
        let permit = self.free.acquire().await.ok()?;
        permit.forget();
        Some(Seat(self))
    }

    /// Changes how many there are. Fewer than are taken become fewer as they are given back; who sat down while there
    /// was no limit is not counted.
    pub(super) fn set_limit(&self, seats: usize) {
        let seats = seats.min(UNLIMITED);
        let mut limit = self.limit.lock().unwrap_or_else(PoisonError::into_inner);
        if seats > *limit {
            let more = seats - *limit;
            let forgiven = (0..more).take_while(|_| self.pay()).count();
            self.free.add_permits(more - forgiven);
        } else {
            let fewer = *limit - seats;
            self.owed.fetch_add(fewer - self.free.forget_permits(fewer), Ordering::Relaxed);
        }
        *limit = seats;
        self.is_limited.store(seats != UNLIMITED, Ordering::Relaxed);
    }

    /// How many there are; `None` without a limit.
    pub(super) fn limit(&self) -> Option<usize> {
        let limit = *self.limit.lock().unwrap_or_else(PoisonError::into_inner);
        (limit != UNLIMITED).then_some(limit)
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Counts one owed seat as gone, if one is owed.
    fn pay(&self) -> bool {
        let less = |owed: usize| owed.checked_sub(1);
        self.owed.load(Ordering::Relaxed) > 0
            && self.owed.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        if !self.0.pay() {
            self.0.free.add_permits(1);
        }
    }
}

/// Counts one as long as it lives.
#[derive(Debug)]
pub(super) struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    pub(super) fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
