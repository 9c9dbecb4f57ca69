//! Answers that were given, within a bound of bytes and of age.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::stream;
use protocol::{Delta, Event, Generation, RequestId, Reused, TokenLogprob};

use super::flight::Flight;
use super::key::Key;

/// An answer, whole: its deltas merged, one for each choice.
#[derive(Debug)]
pub(super) struct Answer {
    model: String,
    prompt_tokens: u32,
    reasons_at_once: bool,
    events: Vec<Event>,
}

impl Answer {
    /// What was heard of a run, as short as it can be told.
    pub(super) fn of(flight: &Flight, heard: &[Event]) -> Self {
        let mut events: Vec<Event> = vec![Event::Started];
        for event in heard {
            match event {
                Event::Queued { .. } | Event::Started => {}
                Event::Delta(more) => {
                    let told = events.iter_mut().find_map(|event| match event {
                        Event::Delta(delta) if delta.choice == more.choice => Some(delta),
                        _ => None,
                    });
                    match told {
                        Some(delta) => append(delta, more),
                        None => events.push(event.clone()),
                    }
                }
                other => events.push(other.clone()),
            }
        }
        let (model, prompt_tokens) = (flight.model().to_owned(), flight.prompt_tokens);
        Self { model, prompt_tokens, reasons_at_once: flight.reasons_at_once, events }
    }

    /// Gives it again.
    pub(super) fn replay(self: Arc<Self>, id: RequestId, reused: Reused) -> Generation {
        let (model, prompt_tokens, reasons) = (self.model.clone(), self.prompt_tokens, self.reasons_at_once);
        let told = (0..self.events.len()).map(move |index| self.events[index].clone());
        let mut generation = Generation::new(id, model, prompt_tokens, stream::iter(told));
        generation.reasons_at_once = reasons;
        generation.reused = Some(reused);
        generation
    }

    fn bytes(&self) -> usize {
        size_of::<Self>() + self.model.len() + self.events.iter().map(event_bytes).sum::<usize>()
    }
}

fn append(delta: &mut Delta, more: &Delta) {
    delta.text.push_str(&more.text);
    delta.tokens.extend(&more.tokens);
    delta.logprobs.extend(more.logprobs.iter().cloned());
}

fn event_bytes(event: &Event) -> usize {
    let held = match event {
        Event::Delta(delta) => {
            delta.text.capacity()
                + delta.tokens.capacity() * size_of::<u32>()
                + delta.logprobs.iter().map(logprob_bytes).sum::<usize>()
        }
        _ => 0,
    };
    size_of::<Event>() + held
}

fn logprob_bytes(entry: &TokenLogprob) -> usize {
    size_of::<TokenLogprob>() + entry.bytes.capacity() + entry.top.iter().map(logprob_bytes).sum::<usize>()
}

/// Answers by request. The one not asked for the longest gives way when there is no room.
#[derive(Debug)]
pub(super) struct Kept {
    entries: HashMap<Key, Entry>,
    bytes: usize,
    capacity: usize,
    lifetime: Duration,
    /// Counts uses, so that entries can be told apart by when they were used.
    uses: u64,
}

#[derive(Debug)]
struct Entry {
    answer: Arc<Answer>,
    bytes: usize,
    until: Duration,
    used: u64,
}

impl Kept {
    pub(super) fn new(capacity: usize, lifetime: Duration) -> Self {
        Self { entries: HashMap::new(), bytes: 0, capacity, lifetime, uses: 0 }
    }

    pub(super) fn is_on(&self) -> bool {
        self.capacity > 0
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    pub(super) fn clear(&mut self) {
        self.entries.clear();
        self.bytes = 0;
    }

    pub(super) fn resize(&mut self, capacity: usize) {
        self.capacity = capacity;
        self.shrink_to(capacity);
    }

    /// The answer to the same request.
    pub(super) fn same(&mut self, key: &Key, now: Duration) -> Option<Arc<Answer>> {
        self.uses += 1;
        let entry = self.entries.get_mut(key)?;
        if entry.until <= now {
            self.remove(&key.clone());
            return None;
        }
        entry.used = self.uses;
        Some(entry.answer.clone())
    }

    /// The answer to the most similar request, if it is similar enough. Looks through all of them: hashes are compared
    /// at a hundred million a second, and few answers fit the bound.
    pub(super) fn similar(&mut self, key: &Key, least: f32, now: Duration) -> Option<(Arc<Answer>, f32)> {
        let fresh = self.entries.iter_mut().filter(|(_, entry)| entry.until > now);
        let alike = fresh.filter_map(|(other, entry)| Some((key.likeness(other)?, entry)));
        let (likeness, entry) = alike.max_by(|one, other| one.0.total_cmp(&other.0))?;
        if likeness < least {
            return None;
        }
        self.uses += 1;
        entry.used = self.uses;
        Some((entry.answer.clone(), likeness))
    }

    pub(super) fn put(&mut self, key: Key, answer: Answer, now: Duration) {
        let bytes = key.bytes() + answer.bytes() + size_of::<Entry>();
        self.remove(&key);
        if bytes > self.capacity {
            return;
        }
        self.entries.retain(|_, entry| {
            entry.until > now || {
                self.bytes -= entry.bytes;
                false
            }
        });
        self.shrink_to(self.capacity - bytes);
        self.uses += 1;
        let until = now.saturating_add(self.lifetime);
        self.entries.insert(key, Entry { answer: Arc::new(answer), bytes, until, used: self.uses });
        self.bytes += bytes;
    }

    fn shrink_to(&mut self, bytes: usize) {
        while self.bytes > bytes {
            let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.used).map(|(key, _)| key.clone());
            match oldest {
                Some(key) => self.remove(&key),
                None => return,
            }
        }
    }

    fn remove(&mut self, key: &Key) {
        if let Some(entry) = self.entries.remove(key) {
            self.bytes -= entry.bytes;
        }
    }
}
