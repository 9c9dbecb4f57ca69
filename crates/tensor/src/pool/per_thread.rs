//! Items that threads take one after the other, each with memory of its own.

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, PoisonError};

use super::{Pool, lock};

/// What every thread of a pool works with, kept from one round to the next for its memory.
#[derive(Debug, Default)]
pub struct PerThread<T> {
    each: Vec<Mutex<T>>,
}

impl<T: Default + Send> PerThread<T> {
    /// Does `work` on every item, on the threads of the pool or on this one. Items may differ in what they cost: a thread
    /// takes the next one as soon as it is done with its own, so whose `T` an item meets is left to chance.
    ///
    /// # Panics
    /// If `work` does, after all threads have ended.
    pub fn for_each<I: Sync>(&mut self, items: &[I], pool: Option<&Pool>, work: impl Fn(&mut T, &I) + Sync) {
        self.each.resize_with(self.each.len().max(pool.map_or(1, Pool::threads)), Mutex::default);
        let (each, next) = (&self.each, AtomicUsize::new(0));
        let round = |thread: usize| {
            let mut own = lock(&each[thread]);
            while let Some(item) = items.get(next.fetch_add(1, Relaxed)) {
                work(&mut own, item);
            }
        };
        match pool {
            Some(pool) => pool.run(&round),
            None => round(0),
        }
    }

    /// What all threads work with.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.each.iter_mut().map(|own| own.get_mut().unwrap_or_else(PoisonError::into_inner))
    }
}
