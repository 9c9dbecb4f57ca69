//! By the time between two uses (LIRS; Jiang and Zhang, "LIRS: an efficient low inter-reference recency set replacement
//! policy", SIGMETRICS 2002): what was used twice within a short time stays, whatever else comes meanwhile. Good for
//! rounds through a little more than fits, of which it keeps a fixed part, and for scans, which push out only themselves.
//!
//! Nearly all room belongs to objects that were used again soon, the *near* ones. The rest is a short queue through which
//! all others pass. Uses are ordered in one stack, down to the near object whose last use is longest ago; whoever is used
//! again while still in it, present or not, has come back sooner than that object does, and takes its place.

use std::collections::{BTreeMap, HashMap};

use super::{Eviction, Facts, Policy};
use crate::Key;

pub(super) const POLICY: Policy = Policy {
    name: "lirs",
    about: "what comes back soonest stays; rounds through more than fits keep a part, a scan pushes out only itself",
    make: || Box::new(Lirs::default()),
};

/// One of so many bytes is left to those that pass through, and room for one of them at least.
const PASSING: usize = 20;

/// Of what has gone, so many times as many are remembered as are present.
const REMEMBERED: usize = 2;

#[derive(Default)]
struct Lirs {
    clock: u64,
    objects: HashMap<Key, Object>,
    /// By last use; the first one is near.
    stack: BTreeMap<u64, Key>,
    /// What passes through, in the order in which it goes.
    queue: BTreeMap<u64, Key>,
    /// What has gone and is in the stack.
    absent: BTreeMap<u64, Key>,
    present: usize,
    present_bytes: usize,
    near_bytes: usize,
    /// The most bytes that may be near, by what there was when one had to go; before that everything is near.
    most_near: Option<usize>,
}

#[derive(Clone, Copy)]
struct Object {
    bytes: usize,
    /// Its place in the stack, unless it was used too long ago.
    used: Option<u64>,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Near,
    /// With its place in the queue.
    Passing(u64),
    Absent,
}

impl Lirs {
    /// Notes a use of what is present now, in whatever state it was.
    fn used(&mut self, key: Key) {
        self.clock += 1;
        let Some(object) = self.objects.get_mut(&key) else { return };
        let before = object.used.replace(self.clock);
        let (bytes, state) = (object.bytes, object.state);
        self.stack.insert(self.clock, key);
        before.into_iter().for_each(|at| _ = self.stack.remove(&at));
        let has_room = self.most_near.is_none_or(|most| self.near_bytes + bytes <= most);
        if state != State::Near && (before.is_some() || has_room) {
            self.set(key, State::Near);
        } else if state != State::Near {
            self.set(key, State::Passing(self.clock));
        }
        self.balance();
    }

    /// Lets near objects pass through that have no place among the near any more, and cuts the stack below the last one.
    fn balance(&mut self) {
        while self.near_bytes > self.most_near.unwrap_or(usize::MAX) {
            self.cut();
            let Some((_, key)) = self.stack.pop_first() else { break };
            self.clock += 1;
            let place = self.clock;
            self.objects.entry(key).and_modify(|object| object.used = None);
            self.set(key, State::Passing(place));
        }
        self.cut();
        while self.absent.len() > REMEMBERED * self.present.max(1)
            && let Some((at, key)) = self.absent.pop_first()
        {
            self.stack.remove(&at);
            self.objects.remove(&key);
        }
    }

    /// Takes from the bottom of the stack what is not near.
    fn cut(&mut self) {
        while let Some((&at, &key)) = self.stack.first_key_value()
            && let Some(object) = self.objects.get_mut(&key)
            && object.state != State::Near
        {
            self.stack.pop_first();
            object.used = None;
            if object.state == State::Absent {
                self.absent.remove(&at);
                self.objects.remove(&key);
            }
        }
    }

    fn set(&mut self, key: Key, state: State) {
        let Some(object) = self.objects.get_mut(&key) else { return };
        match std::mem::replace(&mut object.state, state) {
            State::Near => self.near_bytes -= object.bytes,
            State::Passing(place) => _ = self.queue.remove(&place),
            State::Absent => {}
        }
        match state {
            State::Near => self.near_bytes += object.bytes,
            State::Passing(place) => _ = self.queue.insert(place, key),
            State::Absent => {}
        }
    }
}

impl Eviction for Lirs {
    fn insert(&mut self, key: Key, facts: Facts) {
        let object = self.objects.entry(key).or_insert(Object { bytes: 0, used: None, state: State::Absent });
        object.bytes = facts.bytes;
        object.used.iter().for_each(|at| _ = self.absent.remove(at));
        self.present += 1;
        self.present_bytes += facts.bytes;
        self.used(key);
    }

    fn touch(&mut self, key: Key) {
        if self.objects.get(&key).is_some_and(|object| object.state != State::Absent) {
            self.used(key);
        }
    }

    fn remove(&mut self, key: Key) {
        let Some(object) = self.objects.get(&key).copied().filter(|object| object.state != State::Absent)
        else {
            return;
        };
        self.set(key, State::Absent);
        self.present -= 1;
        self.present_bytes -= object.bytes;
        match object.used {
            Some(at) => _ = self.absent.insert(at, key),
            None => _ = self.objects.remove(&key),
        }
        self.cut();
    }

    fn victim(&mut self, may: &mut dyn FnMut(Key) -> bool) -> Option<Key> {
        let least_passing = (self.present_bytes / PASSING).max(self.present_bytes / self.present.max(1));
        self.most_near = Some(self.present_bytes - least_passing);
        self.balance();
        let passing = self.queue.values().copied().find(|key| may(*key));
        let is_near = |key: &Key| self.objects.get(key).is_some_and(|object| object.state == State::Near);
        passing.or_else(|| self.stack.values().copied().find(|key| is_near(key) && may(*key)))
    }
}
