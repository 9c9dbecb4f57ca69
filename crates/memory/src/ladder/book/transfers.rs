//! What is moved next, and what came of it.

use std::sync::Arc;
use std::time::Duration;

use super::room::Room;
use super::{Below, Book, Hungry, Job, LadderError, Place, Priority, Raising, Rates, Rising, Stage, Stop};
use crate::Key;
use crate::rung::{Blob, RungError};

impl Book {
    /// Gives room to those who wait for some, in order, once the budget is kept to.
    pub(in super::super) fn feed(&mut self) {
        self.trim();
        while !self.ended
            && let Some((&place, hungry)) = self.hungry.first_key_value()
        {
            let bytes = match hungry {
                Hungry::Claim { bytes, .. } => *bytes,
                Hungry::Rise(key) => self.entries.get(key).map_or(0, |entry| entry.bytes),
            };
            let answer = match self.room(bytes) {
                Room::Here(buffer) => Ok(buffer),
                Room::Soon => return,
                Room::Never(error) => Err(error),
            };
            match (self.hungry.remove(&place), answer) {
                (Some(Hungry::Claim { slot, .. }), answer) => slot.fill(answer),
                (Some(Hungry::Rise(key)), Ok(buffer)) => {
                    let Some(rising) = self.entries.get_mut(&key).and_then(|entry| entry.rising.as_mut())
                    else {
                        continue;
                    };
                    rising.stage = Stage::Queued;
                    let raising = Raising { key, ticket: place.1, buffer, stop: rising.stop.clone() };
                    self.jobs.insert(place, Job::Up(raising));
                    self.work.raise();
                }
                (Some(Hungry::Rise(key)), Err(error)) => {
                    let rising = self.entries.get_mut(&key).and_then(|entry| entry.rising.take());
                    self.ahead.remove(&key);
                    rising.into_iter().for_each(|rising| answer_all(rising, &error));
                }
                (None, _) => {}
            }
        }
    }

    /// What is to be done next. Objects that go down go several at once.
    pub(in super::super) fn next_jobs(&mut self, batch: usize) -> Vec<Job> {
        let Some((place, job)) = self.jobs.pop_first() else { return Vec::new() };
        let mut jobs = vec![job];
        if matches!(jobs[0], Job::Down(_)) {
            let same =
                |(at, job): (&Place, &Job)| (at.0 == place.0 && matches!(job, Job::Down(_))).then_some(*at);
            let more: Vec<Place> = self.jobs.iter().filter_map(same).take(batch - 1).collect();
            jobs.extend(more.iter().filter_map(|at| self.jobs.remove(at)));
        }
        self.running += jobs.len();
        for job in &jobs {
            if let Job::Up(raising) = job
                && let Some(rising) =
                    self.entries.get_mut(&raising.key).and_then(|entry| entry.rising.as_mut())
            {
                rising.stage = Stage::Running;
            }
        }
        jobs
    }

    /// Lets an object come up, or hurries it up if it does already.
    pub(super) fn rise(&mut self, key: Key, priority: Priority) {
        let number = self.count();
        let Some(entry) = self.entries.get_mut(&key) else { return };
        let Some(rising) = &mut entry.rising else {
            let place = (priority, number);
            entry.rising = Some(Rising {
                place,
                stage: Stage::Hungry,
                stop: Stop::default(),
                waiting: Vec::new(),
                ahead: priority == Priority::Prefetch,
            });
            self.hungry.insert(place, Hungry::Rise(key));
            return;
        };
        if rising.place.0 <= priority {
            return;
        }
        let place = (priority, rising.place.1);
        let before = std::mem::replace(&mut rising.place, place);
        if let Some(hungry) = self.hungry.remove(&before) {
            self.hungry.insert(place, hungry);
        }
        if let Some(job) = self.jobs.remove(&before) {
            self.jobs.insert(place, job);
        }
    }

    /// Takes back what has been begun to bring an object up, and tells those who wait.
    pub(super) fn stop_rising(&mut self, rising: Rising, error: &LadderError) {
        rising.stop.ask();
        self.hungry.remove(&rising.place);
        if matches!(self.jobs.get(&rising.place), Some(Job::Up(_))) {
            self.jobs.remove(&rising.place);
        }
        answer_all(rising, error);
    }

    /// An object was read, or not.
    pub(in super::super) fn raised(
        &mut self,
        (key, ticket): (Key, u64),
        raised: Result<Blob, RungError>,
        took: Duration,
    ) {
        self.running -= 1;
        let entry = self.entries.get_mut(&key);
        let Some(entry) = entry.filter(|entry| entry.rising.as_ref().is_some_and(|it| it.place.1 == ticket))
        else {
            // It was removed meanwhile, or put again.
            return self.feed();
        };
        let Some(rising) = entry.rising.take() else { return };
        match raised {
            Ok(blob) => {
                self.counts.bytes_up += blob.bytes.len() as u64;
                Rates::learn(&mut self.counts.rates.up, blob.bytes.len(), took);
                let blob = Arc::new(blob);
                if entry.host.is_none() {
                    self.set_host(key, Arc::clone(&blob));
                }
                rising.waiting.iter().for_each(|slot| slot.fill(Ok(Arc::clone(&blob))));
            }
            Err(RungError::Stopped) if rising.ahead || !rising.waiting.is_empty() => {
                // Somebody wants it after all.
                let place = (rising.place.0, self.count());
                let again = Rising { place, stage: Stage::Hungry, stop: Stop::default(), ..rising };
                self.entries.entry(key).and_modify(|entry| entry.rising = Some(again));
                self.hungry.insert(place, Hungry::Rise(key));
            }
            Err(RungError::Stopped) => {}
            Err(cause) => {
                self.ahead.remove(&key);
                let is_lost = matches!(cause, RungError::Damaged { .. } | RungError::Gone { .. });
                self.counts.damaged += u64::from(matches!(cause, RungError::Damaged { .. }));
                self.fail(cause.clone());
                answer_all(rising, &LadderError::Rung { key, cause });
                if is_lost {
                    self.forget(key);
                }
            }
        }
        self.feed();
    }

    /// Objects below were removed to make way for another, or not; so much more came free than that takes.
    pub(in super::super) fn made_way(&mut self, removed: Vec<(Key, Result<(), RungError>)>, excess: usize) {
        let mut kept = 0;
        for (key, outcome) in removed {
            match outcome {
                Ok(()) => self.has_left(key),
                Err(fault) => {
                    self.fail(fault);
                    kept += self.footprint_below(key);
                    self.set_below(key, Below::Present);
                    let entry = self.entries.get_mut(&key);
                    if entry.is_some_and(|entry| std::mem::take(&mut entry.doomed)) {
                        self.forget(key);
                    }
                }
            }
        }
        if let Some(lower) = &mut self.lower {
            lower.used = (lower.used + kept).saturating_sub(excess);
        }
    }

    /// An object below was removed for good, or not.
    pub(in super::super) fn forgotten(&mut self, key: Key, outcome: Result<(), RungError>) {
        self.running -= 1;
        let footprint = self.footprint_below(key);
        match (outcome, &mut self.lower) {
            (Ok(()), Some(lower)) => lower.used -= footprint,
            // Its room stays taken until the rung is opened again.
            (Err(fault), _) => self.fail(fault),
            (Ok(()), None) => {}
        }
        self.has_left(key);
        self.feed();
    }

    /// What an object takes on the rung below.
    fn footprint_below(&self, key: Key) -> usize {
        let bytes = self.entries.get(&key).map_or(0, |entry| entry.bytes_below);
        self.lower.as_ref().map_or(0, |lower| lower.rung.footprint(bytes))
    }

    /// An object is below no more.
    fn has_left(&mut self, key: Key) {
        self.set_below(key, Below::Absent);
        self.entries.entry(key).and_modify(|entry| entry.doomed = false);
        if self.entries.get(&key).is_some_and(|entry| entry.host.is_none()) {
            self.entries.remove(&key);
        }
    }

    /// An object that takes so much of the memory was written down, or not; `pace` tells once for each batch how long all of it took.
    pub(in super::super) fn lowered(
        &mut self,
        (key, footprint): (Key, usize),
        outcome: Result<(), RungError>,
        pace: Option<(usize, Duration)>,
    ) {
        self.running -= 1;
        if let Some((bytes, took)) = pace {
            Rates::learn(&mut self.counts.rates.down, bytes, took);
        }
        self.lowering -= footprint;
        let taken = self.footprint_below(key);
        let Some(entry) = self.entries.get_mut(&key) else { return };
        let is_doomed = std::mem::take(&mut entry.doomed);
        match outcome {
            Ok(()) => {
                self.counts.bytes_down += entry.bytes_below as u64;
                self.set_below(key, Below::Present);
                if is_doomed {
                    self.forget(key);
                }
            }
            Err(fault) => {
                entry.refused = self.attempt;
                self.lower.iter_mut().for_each(|lower| lower.used -= taken);
                self.fail(fault);
                self.has_left(key);
            }
        }
        self.clean();
        self.feed();
    }

    pub(super) fn fail(&mut self, fault: RungError) {
        self.counts.faults += 1;
        self.fault = Some(fault);
    }
}

fn answer_all(rising: Rising, error: &LadderError) {
    rising.waiting.into_iter().for_each(|slot| slot.fill(Err(error.clone())));
}
