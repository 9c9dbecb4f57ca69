//! The threads that move bytes: they take what the book says is next, do it, and tell the book what came of it.

use std::time::Instant;

use super::Shared;
use super::book::{Job, Lowering, Raising};
use crate::rung::{Blob, Parcel, Rung, RungError};
use crate::signal::Signal;

impl Shared {
    /// Works until the ladder ends.
    pub(super) fn work_until_the_end(&self, work: &Signal) {
        loop {
            let seen = work.count();
            if self.work_once() {
                continue;
            }
            if self.book.enter().has_ended() {
                return;
            }
            work.sleep(seen);
        }
    }

    /// Does what is next, and says whether there was anything.
    pub(super) fn work_once(&self) -> bool {
        let Some(rung) = &self.rung else { return false };
        let (jobs, has_ended) = {
            let mut book = self.book.enter();
            (book.next_jobs(self.batch), book.has_ended())
        };
        if jobs.is_empty() {
            return !has_ended && rung.tend();
        }
        let mut lowering = Vec::new();
        for job in jobs {
            match job {
                Job::Up(raising) => self.raise(&**rung, raising),
                Job::Forget(key) => {
                    let outcome = rung.remove(key);
                    self.book.enter().forgotten(key, outcome);
                }
                Job::Down(job) => lowering.push(job),
            }
        }
        self.lower(&**rung, lowering);
        true
    }

    fn raise(&self, rung: &dyn Rung, raising: Raising) {
        let Raising { key, ticket, mut buffer, stop } = raising;
        let began = Instant::now();
        let fetched = rung.fetch(key, &mut buffer, &stop);
        let took = began.elapsed();
        let raised = fetched.map(|note| Blob { note, bytes: buffer });
        self.book.enter().raised((key, ticket), raised, took);
    }

    /// Removes what has to go for it, then writes all of them together.
    fn lower(&self, rung: &dyn Rung, jobs: Vec<Lowering>) {
        let mut writing = Vec::new();
        for job in jobs {
            let removed: Vec<_> = job.evict.iter().map(|key| (*key, rung.remove(*key))).collect();
            let refusal = removed.iter().find_map(|(_, outcome)| outcome.clone().err());
            self.book.enter().made_way(removed, job.excess);
            match refusal {
                Some(refusal) => {
                    let written = (job.key, job.blob.bytes.footprint());
                    drop(job);
                    self.book.enter().lowered(written, Err(refusal), None);
                }
                None => writing.push(job),
            }
        }
        if writing.is_empty() {
            return;
        }
        let parcels: Vec<_> = writing.iter().map(|job| Parcel::new(job.key, &job.blob)).collect();
        let began = Instant::now();
        let outcomes = rung.keep(&parcels);
        let took = began.elapsed();
        let bytes: usize = parcels.iter().map(|parcel| parcel.bytes.len()).sum();
        let written: Vec<_> = parcels.iter().map(|parcel| (parcel.key, parcel.bytes.footprint())).collect();
        // The blobs are let go first, so that what has been written can leave memory.
        drop(writing);
        let silent = || Err(RungError::Gone { place: rung.place() });
        let mut outcomes = outcomes.into_iter();
        for (index, written) in written.into_iter().enumerate() {
            let pace = (index == 0).then_some((bytes, took));
            self.book.enter().lowered(written, outcomes.next().unwrap_or_else(silent), pace);
        }
    }
}
