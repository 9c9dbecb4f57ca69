//! Two rungs as one: a quick one, such as the memory of a device, over one that has more room, such as a disk. Either may be
//! such a pair again.
//!
//! An object goes to the upper rung while there is room, and is copied down before that room is needed: above the high
//! watermark what the policy names is copied to the lower rung in the ladder's idle time, and copies are what goes at once
//! when something new comes. What is read from below leaves a copy above, so what is used stays quick. An object leaves a
//! rung only when it is whole on the other one, and an upper rung that fails costs nothing that the lower one has as well.
//!
//! Each key is worked on by one call at a time, which is what rungs ask for; calls for others go on meanwhile.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use super::{Level, Medium, Parcel, Rung, RungError, Stop};
use crate::buffers::{BLOCK, size_class};
use crate::eviction::{Eviction, Facts};
use crate::ladder::{OpenError, Rates, Watermarks, Writing};
use crate::sync::{Condvar, Mutex, MutexGuard, lock, wait};
use crate::{Buffer, BufferPool, Key, PolicyChoice, Residency};

/// A rung, and how many bytes of objects may be there.
#[derive(Clone)]
pub struct Step {
    /// Where they are.
    pub rung: Arc<dyn Rung>,
    /// How many bytes there may be.
    pub bytes: usize,
}

/// How a [`Cascade`] works.
#[derive(Clone, Debug, Default)]
pub struct CascadeSettings {
    /// Whether everything is written to the lower rung at once, because it survives what the upper one does not.
    pub writing: Writing,
    /// What leaves the upper rung first.
    pub policy: PolicyChoice,
    /// From what share of the upper rung on objects are copied down, and until what share of it has no copy.
    pub watermarks: Watermarks,
}

/// Two rungs as one.
pub struct Cascade {
    steps: [Step; 2],
    writing: Writing,
    watermarks: Watermarks,
    /// Memory for an object on its way down, which goes back to the system after each.
    staging: BufferPool,
    state: Mutex<State>,
    /// Somebody is done with a key.
    released: Condvar,
}

type Outcome = Result<(), RungError>;

const UPPER: usize = 0;
const LOWER: usize = 1;

struct State {
    objects: HashMap<Key, Object>,
    counts: [Counts; 2],
    policy: Box<dyn Eviction>,
    /// Bytes on the upper rung that are not on the lower one.
    single: usize,
    copying: Copying,
}

#[derive(Clone, Copy, Debug, Default)]
struct Object {
    bytes: usize,
    /// On which rungs it is.
    on: [bool; 2],
    /// Whether a call works on it.
    is_busy: bool,
}

#[derive(Clone, Debug, Default)]
struct Counts {
    used: usize,
    objects: usize,
    written: u64,
    read: u64,
    rates: Rates,
    faults: u64,
}

/// Whether objects are to be copied down. One thread does it, so that the others are there for those who wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Copying {
    Idle,
    Due,
    Running,
}

impl Cascade {
    /// The two as one. What they hold already is there.
    ///
    /// # Errors
    /// When a rung cannot be read, or the system refuses the addresses for what is on its way.
    pub fn new(upper: Step, lower: Step, settings: &CascadeSettings) -> Result<Self, OpenError> {
        let longest = size_class(upper.bytes);
        // A pool that may use less than it has gives back what it does not use.
        let staging = BufferPool::new(longest + BLOCK, Residency::Pageable)?;
        staging.set_budget(longest);
        let state = State {
            objects: HashMap::new(),
            counts: Default::default(),
            policy: settings.policy.make(),
            single: 0,
            copying: Copying::Idle,
        };
        let CascadeSettings { writing, watermarks, .. } = *settings;
        let state = Mutex::new(state);
        let cascade =
            Self { steps: [upper, lower], writing, watermarks, staging, state, released: Condvar::new() };
        for at in [UPPER, LOWER] {
            for (key, bytes) in cascade.steps[at].rung.inventory()? {
                let mut state = cascade.state();
                state.objects.entry(key).or_default().bytes = bytes;
                state.counts[at].used += cascade.steps[at].rung.footprint(bytes);
                cascade.note(&mut state, key, |on| on[at] = true);
            }
        }
        Ok(cascade)
    }

    /// Bytes of objects that there may be in all: those of both rungs, or of the lower one where everything is there.
    pub fn budget(&self) -> usize {
        let [upper, lower] = &self.steps;
        match self.writing {
            Writing::Back => upper.bytes.saturating_add(lower.bytes),
            Writing::Through => lower.bytes,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Waits until nobody works on an object, and works on it; `None` if there is no such object.
    fn claim(&self, key: Key) -> Option<Object> {
        let mut state = self.state();
        while state.objects.get(&key)?.is_busy {
            state = wait(&self.released, state);
        }
        let object = state.objects.get_mut(&key)?;
        object.is_busy = true;
        Some(*object)
    }

    /// Works on an object no more, and forgets it if it is nowhere.
    fn release(&self, key: Key) {
        let mut state = self.state();
        if let Some(object) = state.objects.get_mut(&key) {
            object.is_busy = false;
            if object.on == [false; 2] {
                state.objects.remove(&key);
            }
        }
        drop(state);
        self.released.notify_all();
    }

    /// Notes that an object comes to a rung, where its room has been taken, or leaves one, where it is given back.
    fn note(&self, state: &mut State, key: Key, change: impl FnOnce(&mut [bool; 2])) {
        let State { objects, counts, policy, single, .. } = state;
        let Some(object) = objects.get_mut(&key) else { return };
        let was = object.on;
        change(&mut object.on);
        let footprints = self.steps.each_ref().map(|step| step.rung.footprint(object.bytes));
        let weight = |on: [bool; 2]| if on == [true, false] { footprints[UPPER] } else { 0 };
        *single = *single + weight(object.on) - weight(was);
        for at in [UPPER, LOWER] {
            match (was[at], object.on[at]) {
                (false, true) => counts[at].objects += 1,
                (true, false) => {
                    counts[at].objects -= 1;
                    counts[at].used -= footprints[at];
                }
                _ => {}
            }
        }
        match (was[UPPER], object.on[UPPER]) {
            (false, true) => policy.insert(key, Facts { bytes: object.bytes, cost: 0.0 }),
            (true, false) => policy.remove(key),
            _ => {}
        }
    }

    /// Takes an object that is worked on from a rung.
    fn take_from(&self, at: usize, key: Key) -> Result<(), RungError> {
        let outcome = self.steps[at].rung.remove(key);
        let mut state = self.state();
        match &outcome {
            Ok(()) => self.note(&mut state, key, |on| on[at] = false),
            Err(_) => state.counts[at].faults += 1,
        }
        outcome
    }

    /// Takes room on a rung; on the upper one, copies go for it.
    fn make_room(&self, at: usize, footprint: usize) -> Result<(), RungError> {
        let Step { rung, bytes } = &self.steps[at];
        let mut state = self.state();
        while state.counts[at].used.saturating_add(footprint) > *bytes {
            let State { objects, policy, .. } = &mut *state;
            let mut is_copy =
                |key| objects.get(&key).is_some_and(|object| !object.is_busy && object.on[LOWER]);
            let would_help = at == UPPER && footprint <= *bytes;
            let copy = if would_help { policy.victim(&mut is_copy) } else { None };
            let Some(key) = copy else {
                let cause = format!("{} of {bytes} bytes are in use", state.counts[at].used);
                return Err(RungError::Full { place: rung.place(), cause });
            };
            state.objects.entry(key).and_modify(|object| object.is_busy = true);
            drop(state);
            let outcome = self.take_from(UPPER, key);
            self.release(key);
            outcome?;
            state = self.state();
        }
        state.counts[at].used += footprint;
        Ok(())
    }

    /// Keeps objects that are worked on on a rung, as far as there is room.
    fn keep_on(&self, at: usize, parcels: &[Parcel<'_>]) -> Vec<Outcome> {
        let footprint = |parcel: &Parcel<'_>| self.steps[at].rung.footprint(parcel.bytes.len());
        let mut outcomes = parcels.iter().map(|parcel| self.make_room(at, footprint(parcel))).collect();
        refine(&mut outcomes, parcels, Result::is_ok, |fitting| self.write_to(at, fitting));
        outcomes
    }

    /// Writes objects that are worked on to a rung where room was taken for them.
    fn write_to(&self, at: usize, parcels: &[Parcel<'_>]) -> Vec<Outcome> {
        let rung = &self.steps[at].rung;
        let began = Instant::now();
        let outcomes = rung.keep(parcels);
        let took = began.elapsed();
        let mut state = self.state();
        let mut written = 0;
        for (parcel, outcome) in parcels.iter().zip(&outcomes) {
            let bytes = parcel.bytes.len();
            if outcome.is_ok() {
                written += bytes;
                self.note(&mut state, parcel.key, |on| on[at] = true);
            } else {
                state.counts[at].used -= rung.footprint(bytes);
                state.counts[at].faults += 1;
            }
        }
        let counts = &mut state.counts[at];
        if written > 0 {
            counts.written += written as u64;
            Rates::learn(&mut counts.rates.down, written, took);
        }
        if state.copying == Copying::Idle && state.counts[UPPER].used > self.mark(self.watermarks.high) {
            state.copying = Copying::Due;
        }
        outcomes
    }

    /// A share of what may be on the upper rung.
    fn mark(&self, share: f64) -> usize {
        (share * self.steps[UPPER].bytes as f64) as usize
    }

    /// Reads an object that is worked on from a rung.
    fn fetch_from(
        &self,
        at: usize,
        key: Key,
        into: &mut Buffer,
        stop: &Stop,
    ) -> Result<Box<[u8]>, RungError> {
        let began = Instant::now();
        let fetched = self.steps[at].rung.fetch(key, into, stop);
        let mut state = self.state();
        let counts = &mut state.counts[at];
        match &fetched {
            Ok(_) => {
                counts.read += into.len() as u64;
                Rates::learn(&mut counts.rates.up, into.len(), began.elapsed());
            }
            Err(RungError::Stopped) => {}
            Err(_) => counts.faults += 1,
        }
        fetched
    }

    /// Reads an object that is worked on from the first rung that has it.
    fn fetch_claimed(
        &self,
        (key, on): (Key, [bool; 2]),
        into: &mut Buffer,
        stop: &Stop,
    ) -> Result<Box<[u8]>, RungError> {
        let [is_above, is_below] = on;
        if is_above {
            self.state().policy.touch(key);
            match self.fetch_from(UPPER, key, into, stop) {
                Err(error) if is_below && error != RungError::Stopped => {
                    // Whatever that was, it is not what was kept; if it cannot go, the next read meets it again.
                    let _ = self.take_from(UPPER, key);
                }
                fetched => return fetched,
            }
        }
        let note = self.fetch_from(LOWER, key, into, stop)?;
        if !self.state().objects.get(&key).is_some_and(|object| object.on[UPPER]) {
            // It is below all the same; what goes wrong above is counted there.
            let _ = self.keep_on(UPPER, &[Parcel { key, note: &note, bytes: into }]);
        }
        Ok(note)
    }

    /// The object to be copied down next, worked on from now, if one is to be.
    fn next_to_copy(&self) -> Option<(Key, usize)> {
        let low = self.mark(self.watermarks.low);
        let mut state = self.state();
        if state.copying != Copying::Due {
            return None;
        }
        let State { objects, policy, single, copying, .. } = &mut *state;
        let mut is_single =
            |key| objects.get(&key).is_some_and(|object| !object.is_busy && object.on == [true, false]);
        let next = if *single > low { policy.victim(&mut is_single) } else { None };
        *copying = if next.is_some() { Copying::Running } else { Copying::Idle };
        let object = objects.get_mut(&next?)?;
        object.is_busy = true;
        Some((next?, object.bytes))
    }

    /// Copies an object that is worked on down, and says whether it is there.
    fn copy_down(&self, key: Key, bytes: usize) -> bool {
        let Some(mut staging) = self.staging.take(bytes) else { return false };
        let Ok(note) = self.fetch_from(UPPER, key, &mut staging, &Stop::default()) else { return false };
        staging.clear_padding();
        self.keep_on(LOWER, &[Parcel { key, note: &note, bytes: &staging }]).iter().all(Result::is_ok)
    }

    /// Begins to work on an object that is new. If it could not be removed wholly when it was removed, it is now.
    fn begin(&self, parcel: &Parcel<'_>) -> Outcome {
        self.remove(parcel.key)?;
        let object = Object { bytes: parcel.bytes.len(), on: [false; 2], is_busy: true };
        self.state().objects.insert(parcel.key, object);
        Ok(())
    }

    /// Keeps objects that are worked on.
    fn keep_new(&self, parcels: &[Parcel<'_>]) -> Vec<Outcome> {
        let outcomes = match self.writing {
            Writing::Back => {
                let mut outcomes = self.keep_on(UPPER, parcels);
                refine(&mut outcomes, parcels, Result::is_err, |rest| self.keep_on(LOWER, rest));
                outcomes
            }
            Writing::Through => {
                let (below, above) = (self.keep_on(LOWER, parcels), self.keep_on(UPPER, parcels));
                let either =
                    |(below, above): (Outcome, Outcome)| below.or_else(|error| above.map_err(|_| error));
                below.into_iter().zip(above).map(either).collect()
            }
        };
        parcels.iter().for_each(|parcel| self.release(parcel.key));
        outcomes
    }
}

/// Works on the objects whose outcomes so far are `such`, which then have those of the work.
fn refine(
    outcomes: &mut Vec<Outcome>,
    parcels: &[Parcel<'_>],
    such: fn(&Outcome) -> bool,
    work: impl FnOnce(&[Parcel<'_>]) -> Vec<Outcome>,
) {
    let pairs = parcels.iter().zip(&*outcomes);
    let chosen: Vec<Parcel<'_>> =
        pairs.filter(|(_, outcome)| such(outcome)).map(|(parcel, _)| *parcel).collect();
    if !chosen.is_empty() {
        let places = outcomes.iter_mut().filter(|outcome| such(outcome));
        work(&chosen).into_iter().zip(places).for_each(|(outcome, place)| *place = outcome);
    }
}

impl Rung for Cascade {
    fn place(&self) -> String {
        let [upper, lower] = &self.steps;
        format!("{} and {}", upper.rung.place(), lower.rung.place())
    }

    fn medium(&self) -> Medium {
        self.steps[LOWER].rung.medium()
    }

    fn footprint(&self, bytes: usize) -> usize {
        let [upper, lower] = self.steps.each_ref().map(|step| step.rung.footprint(bytes));
        match self.writing {
            // As much as it takes wherever it is.
            Writing::Back => upper.max(lower),
            Writing::Through => lower,
        }
    }

    fn keep(&self, parcels: &[Parcel<'_>]) -> Vec<Outcome> {
        let mut outcomes = parcels.iter().map(|parcel| self.begin(parcel)).collect();
        refine(&mut outcomes, parcels, Result::is_ok, |new| self.keep_new(new));
        outcomes
    }

    fn fetch(&self, key: Key, into: &mut Buffer, stop: &Stop) -> Result<Box<[u8]>, RungError> {
        let gone = || RungError::Gone { place: format!("object {key} on {}", self.place()) };
        let object = self.claim(key).ok_or_else(gone)?;
        let fetched = self.fetch_claimed((key, object.on), into, stop);
        self.release(key);
        fetched
    }

    fn remove(&self, key: Key) -> Result<(), RungError> {
        let Some(object) = self.claim(key) else { return Ok(()) };
        let remove = |at: usize| if object.on[at] { self.take_from(at, key) } else { Ok(()) };
        let (above, below) = (remove(UPPER), remove(LOWER));
        self.release(key);
        above.and(below)
    }

    fn inventory(&self) -> Result<Vec<(Key, usize)>, RungError> {
        let state = self.state();
        Ok(state.objects.iter().map(|(key, object)| (*key, object.bytes)).collect())
    }

    fn tend(&self) -> bool {
        let Some((key, bytes)) = self.next_to_copy() else {
            return self.steps.iter().any(|step| step.rung.tend());
        };
        let is_copied = self.copy_down(key, bytes);
        self.release(key);
        let mut state = self.state();
        if is_copied {
            state.copying = Copying::Due;
        } else {
            // It is tried again when something new comes, after others.
            state.copying = Copying::Idle;
            if state.objects.get(&key).is_some_and(|object| object.on[UPPER]) {
                state.policy.touch(key);
            }
        }
        true
    }

    fn levels(&self) -> Vec<Level> {
        let counts = self.state().counts.clone();
        let mut levels = Vec::new();
        for (Step { rung, bytes }, counts) in self.steps.iter().zip(counts) {
            let Counts { used, objects, written, read, rates, faults } = counts;
            let (place, medium, budget) = (rung.place(), rung.medium(), *bytes);
            match rung.levels() {
                parts if parts.is_empty() => {
                    levels.push(Level { place, medium, used, budget, objects, written, read, rates, faults });
                }
                parts => levels.extend(parts),
            }
        }
        levels
    }
}

impl std::fmt::Debug for Cascade {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cascade").field("place", &self.place()).finish_non_exhaustive()
    }
}
