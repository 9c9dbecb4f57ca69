//! What a putter brings, and what becomes of it.

use crate::queue::dead_letters::Cause;
use crate::queue::keys::First;
use crate::queue::lanes::Batch;
use crate::queue::rejected::{Rejected, Rejection};
use crate::queue::store::Position;
use crate::queue::throttle::Queueing;
use crate::queue::{Taken, Ticket, TicketId};

/// An item on its way in.
pub(in crate::queue) struct Parcel<T> {
    pub(super) item: T,
    pub(super) ticket: Ticket,
    /// As the store is to keep it; empty in a queue without one.
    pub(super) encoded: Vec<u8>,
    pub(super) queueing: Queueing,
}

/// Whether a putter waits for room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::queue) enum Patience {
    Waits,
    Hurries,
}

/// One item or several, and what came of it.
pub(in crate::queue) struct Offer<T> {
    pub(super) patience: Patience,
    /// Plain items that come before all others.
    pub(super) batch: Batch<T>,
    /// The names of those of them that were taken.
    pub(super) taken: Vec<TicketId>,
    /// The only item, or none if there are several.
    pub(super) parcel: Option<Parcel<T>>,
    pub(super) rest: std::vec::IntoIter<Parcel<T>>,
    /// The answer to the only item.
    pub(super) answer: Option<Answer<T>>,
    /// The answers to several.
    pub(super) answers: Vec<Answer<T>>,
}

/// What came of an offer of several items.
pub(in crate::queue) struct Answers<T> {
    /// The names of those that were taken together, before all others.
    pub(in crate::queue) taken: Vec<TicketId>,
    pub(in crate::queue) answers: Vec<Answer<T>>,
    /// What was not looked at because one was rejected.
    pub(in crate::queue) rest: Vec<Parcel<T>>,
}

/// What became of an item. Nearly always it is taken, so the rest is kept elsewhere.
pub(in crate::queue) enum Answer<T> {
    Taken(TicketId),
    /// An item with its key came before; that one may still be on its way to the disk.
    Known(First, Box<Parcel<T>>),
    /// It is taken once the store has settled it.
    Noted(Box<Noted<T>>),
    Rejected(Box<Rejected<T>>),
}

/// An item that a store was told of.
pub(in crate::queue) struct Noted<T> {
    pub(super) taken: Taken<T>,
    pub(in crate::queue) position: Position,
    /// Why it goes among the dead letters at once, if it does.
    pub(super) cause: Option<Cause>,
}

impl<T> Answer<T> {
    /// Where the store notes what the answer depends on.
    pub(in crate::queue) fn position(&self) -> Option<Position> {
        match self {
            Self::Known(first, _) => first.position,
            Self::Noted(noted) => Some(noted.position),
            Self::Taken(_) | Self::Rejected(_) => None,
        }
    }
}

impl<T> Noted<T> {
    pub(in crate::queue) fn id(&self) -> TicketId {
        self.taken.id
    }
}

impl<T> Parcel<T> {
    pub(in crate::queue) fn new(item: T, ticket: Ticket, encoded: Vec<u8>) -> Self {
        Self { item, ticket, encoded, queueing: Queueing::New }
    }

    pub(in crate::queue) fn reject(self, reason: Rejection) -> Rejected<T> {
        Rejected { item: self.item, ticket: self.ticket, reason, retry_after: None }
    }

    pub(in crate::queue) fn unpack(self) -> (T, Ticket) {
        (self.item, self.ticket)
    }
}

impl<T> Offer<T> {
    pub(in crate::queue) fn one(parcel: Parcel<T>, patience: Patience) -> Self {
        let (batch, rest) = (Batch::default(), Vec::new().into_iter());
        let (taken, answers) = (Vec::new(), Vec::new());
        Self { patience, batch, taken, parcel: Some(parcel), rest, answer: None, answers }
    }

    pub(in crate::queue) fn many(batch: Batch<T>, parcels: Vec<Parcel<T>>) -> Self {
        let (patience, answers) = (Patience::Waits, Vec::with_capacity(parcels.len()));
        let rest = parcels.into_iter();
        Self { patience, batch, taken: Vec::new(), parcel: None, rest, answer: None, answers }
    }

    /// Has the items of the batch looked at one by one.
    pub(super) fn take_apart(&mut self) {
        let batch = std::mem::take(&mut self.batch).into_items();
        let parcels = batch.map(|(item, ticket)| Parcel::new(item, ticket, Vec::new()));
        let parcels: Vec<_> = parcels.chain(std::mem::take(&mut self.rest)).collect();
        self.answers.reserve(parcels.len());
        self.rest = parcels.into_iter();
    }

    pub(in crate::queue) fn is_answered(&self) -> bool {
        self.answer.is_some()
    }

    /// The answer to an offer of one item.
    pub(in crate::queue) fn into_answer(self) -> Option<Answer<T>> {
        self.answer
    }

    /// The answers to an offer of several, and what was not looked at because one was rejected.
    pub(in crate::queue) fn into_answers(self) -> Answers<T> {
        let Self { taken, mut answers, answer, parcel, rest, .. } = self;
        answers.extend(answer);
        Answers { taken, answers, rest: parcel.into_iter().chain(rest).collect() }
    }

    pub(super) fn answer(&mut self, answer: Answer<T>) {
        if self.answers.capacity() > 0 {
            self.answers.push(answer);
        } else {
            self.answer = Some(answer);
        }
    }

    /// The item whose turn it is.
    pub(super) fn parcel(&self) -> Option<&Parcel<T>> {
        self.parcel.as_ref().or_else(|| self.rest.as_slice().first())
    }

    pub(super) fn parcel_mut(&mut self) -> Option<&mut Parcel<T>> {
        self.parcel.as_mut().or_else(|| self.rest.as_mut_slice().first_mut())
    }

    #[inline]
    pub(super) fn next(&mut self) -> Option<Parcel<T>> {
        if self.parcel.is_some() { self.parcel.take() } else { self.rest.next() }
    }
}
