//! How an item comes in: what may keep it out, and in what order that is asked.

use std::time::Duration;

use crate::queue::dead_letters::Cause;
use crate::queue::exchange::Progress;
use crate::queue::gone::Why;
use crate::queue::keys::First;
use crate::queue::rejected::{Rejected, Rejection};
use crate::queue::settings::{Doomed, Overflow};
use crate::queue::store::{Entry, Position};
use crate::queue::stored::Stored;
use crate::queue::throttle::{Brake, Queueing};
use crate::queue::{Taken, Ticket, TicketId};

use super::Books;

/// An item on its way in.
pub(in crate::queue) struct Parcel<T> {
    item: T,
    ticket: Ticket,
    /// As the store is to keep it; empty in a queue without one.
    encoded: Vec<u8>,
    queueing: Queueing,
}

/// Whether a putter waits for room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::queue) enum Patience {
    Waits,
    Hurries,
}

/// One item or several, and what came of it.
pub(in crate::queue) struct Offer<T> {
    patience: Patience,
    /// The item whose turn it is.
    parcel: Option<Parcel<T>>,
    /// Those behind it.
    rest: std::vec::IntoIter<Parcel<T>>,
    /// The last answer.
    answer: Option<Answer<T>>,
    /// Those before it.
    answers: Vec<Answer<T>>,
}

/// What became of an item.
pub(in crate::queue) enum Answer<T> {
    Taken(TicketId),
    /// An item with its key came before; that one may still be on its way to the disk.
    Known(First, Parcel<T>),
    /// It is taken once the store has settled it.
    Noted(Noted<T>),
    Rejected(Rejected<T>),
}

/// An item that a store was told of.
pub(in crate::queue) struct Noted<T> {
    taken: Taken<Stored<T>>,
    position: Position,
    /// Why it goes among the dead letters at once, if it does.
    cause: Option<Cause>,
}

impl<T> Answer<T> {
    /// Where the store notes what the answer depends on.
    pub(in crate::queue) fn position(&self) -> Option<Position> {
        match self {
            Self::Known(first, _) => Some(first.position),
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

/// What keeps an item out.
enum Obstacle {
    Known(First),
    Full(Rejection),
    Slow(Brake),
    Final(Rejection),
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
        let rest = Vec::new().into_iter();
        Self { patience, parcel: Some(parcel), rest, answer: None, answers: Vec::new() }
    }

    pub(in crate::queue) fn many(parcels: Vec<Parcel<T>>) -> Self {
        let answers = Vec::with_capacity(parcels.len());
        let mut rest = parcels.into_iter();
        Self { patience: Patience::Waits, parcel: rest.next(), rest, answer: None, answers }
    }

    pub(in crate::queue) fn is_answered(&self) -> bool {
        self.answer.is_some()
    }

    /// The answer to an offer of one item.
    pub(in crate::queue) fn into_answer(self) -> Option<Answer<T>> {
        self.answer
    }

    /// The answers to an offer of several, and what was not looked at because one was rejected.
    pub(in crate::queue) fn into_answers(self) -> (Vec<Answer<T>>, Vec<Parcel<T>>) {
        let Self { mut answers, answer, parcel, rest, .. } = self;
        answers.extend(answer);
        (answers, parcel.into_iter().chain(rest).collect())
    }

    fn answer(&mut self, answer: Answer<T>) {
        if let Some(earlier) = self.answer.replace(answer) {
            self.answers.push(earlier);
        }
        self.parcel = self.rest.next();
    }
}

impl<T> Books<T> {
    pub(super) fn consider(&mut self, offer: &mut Offer<T>) -> Progress {
        while let Some(parcel) = offer.parcel.take() {
            let answer = match self.obstacle(&parcel) {
                None => self.take_in(parcel),
                Some(Obstacle::Known(first)) => {
                    self.tally.duplicates += 1;
                    Answer::Known(first, self.wait_no_more(parcel))
                }
                Some(Obstacle::Full(why)) => match (self.settings.overflow, offer.patience) {
                    (Overflow::Wait, Patience::Waits) => {
                        offer.parcel = Some(parcel);
                        return Progress::Blocked;
                    }
                    (Overflow::DropOldest, _) if self.drop_oldest() => {
                        offer.parcel = Some(parcel);
                        continue;
                    }
                    (Overflow::DeadLetter, _) => self.take_in_dead(parcel),
                    _ => Answer::Rejected(self.reject_for_room(parcel, why)),
                },
                Some(Obstacle::Slow(brake)) => match offer.patience {
                    Patience::Waits => return self.hold_back(offer, parcel, &brake),
                    Patience::Hurries => {
                        let mut rejected = self.reject(parcel, Rejection::Rate);
                        rejected.retry_after = Some(brake.wait());
                        Answer::Rejected(rejected)
                    }
                },
                Some(Obstacle::Final(why)) => Answer::Rejected(self.reject(parcel, why)),
            };
            let is_rejected = matches!(answer, Answer::Rejected(_));
            offer.answer(answer);
            if is_rejected {
                break;
            }
        }
        Progress::Finished
    }

    /// Refuses an offer that will not wait behind those who do.
    pub(super) fn decline(&mut self, offer: &mut Offer<T>) {
        if let Some(parcel) = offer.parcel.take() {
            let why = if self.line.is_closed() { Rejection::Closed } else { Rejection::Turn };
            let rejected = self.reject_for_room(parcel, why);
            offer.answer(Answer::Rejected(rejected));
        }
    }

    /// Sorts out an offer whose owner went away. What was noted is in the queue, since the store may keep it and its
    /// key counts as used.
    pub(super) fn finish_abandoned(&mut self, mut offer: Offer<T>) -> Option<Offer<T>> {
        if let Some(parcel) = offer.parcel.take() {
            offer.parcel = Some(self.wait_no_more(parcel));
        }
        let answers = std::mem::take(&mut offer.answers).into_iter().chain(offer.answer.take());
        offer.answers = self.keep_noted(answers);
        Some(offer)
    }

    /// Takes what was noted into the queue; the other answers come back.
    pub(in crate::queue) fn keep_noted(
        &mut self,
        answers: impl IntoIterator<Item = Answer<T>>,
    ) -> Vec<Answer<T>> {
        let mut others = Vec::new();
        for answer in answers {
            match answer {
                Answer::Noted(noted) => self.settle(noted),
                other => others.push(other),
            }
        }
        others
    }

    /// What the store has settled is in the queue.
    pub(in crate::queue) fn settle(&mut self, noted: Noted<T>) {
        let Noted { taken, cause, .. } = noted;
        self.outside.subtract(&taken.ticket);
        match cause {
            None => self.admit(taken),
            Some(cause) => self.bury(taken, cause),
        }
    }

    /// What the store could not settle is not in the queue.
    pub(in crate::queue) fn unsettle(&mut self, noted: Noted<T>, reason: Rejection) -> Rejected<T> {
        let Taken { item, id, ticket, .. } = noted.taken;
        self.outside.subtract(&ticket);
        self.tally.accepted -= 1;
        self.tally.rejected.count(&reason);
        if let Some((keys, key)) = self.keys.as_mut().zip(ticket.key.as_deref()) {
            keys.forget(key, id);
        }
        Rejected { item: item.item, ticket, reason, retry_after: None }
    }

    /// Gives an item back that has waited for room as long as it was to.
    pub(in crate::queue) fn time_out(&mut self, offer: Offer<T>) -> Option<Rejected<T>> {
        offer.parcel.map(|parcel| self.reject_for_room(parcel, Rejection::TimedOut))
    }

    /// Asks what costs least first, and for tokens last, since asking takes them.
    fn obstacle(&mut self, parcel: &Parcel<T>) -> Option<Obstacle> {
        let ticket = &parcel.ticket;
        if self.line.is_closed() {
            return Some(Obstacle::Final(Rejection::Closed));
        }
        if let Some((keys, key)) = self.keys.as_mut().zip(ticket.key.as_deref())
            && let Some(first) = keys.seen(key, self.now)
        {
            return Some(Obstacle::Known(first));
        }
        if let Some(why) = self.lateness(ticket) {
            return Some(Obstacle::Final(why));
        }
        if let Some(why) = self.crowding(ticket) {
            return Some(Obstacle::Full(why));
        }
        self.throttle.pass(&ticket.owner, self.now, parcel.queueing).err().map(Obstacle::Slow)
    }

    fn lateness(&self, ticket: &Ticket) -> Option<Rejection> {
        let deadline = ticket.deadline?;
        if deadline <= self.now {
            return Some(Rejection::Expired);
        }
        let service = self.service.median()?;
        let is_doomed = deadline < self.now.saturating_add(service);
        (is_doomed && self.settings.doomed == Doomed::Reject).then_some(Rejection::Doomed { service })
    }

    /// The bound under which there is no room for it. What alone is larger than a bound goes into an empty queue.
    fn crowding(&self, ticket: &Ticket) -> Option<Rejection> {
        let capacity = self.settings.capacity;
        let depth = self.depth();
        let exceeds = |held: u64, more: u64, bound: u64| {
            depth > 0 && held.checked_add(more).is_none_or(|total| total > bound)
        };
        if depth >= capacity.items {
            Some(Rejection::Items)
        } else if exceeds(self.cost(), ticket.cost, capacity.cost) {
            Some(Rejection::Cost)
        } else if exceeds(self.bytes(), ticket.bytes, capacity.bytes) {
            Some(Rejection::Bytes)
        } else {
            None
        }
    }

    fn take_in(&mut self, parcel: Parcel<T>) -> Answer<T> {
        if self.journal.is_some() {
            return self.note(parcel, None);
        }
        let taken = self.enter(parcel);
        let id = taken.id;
        self.admit(taken);
        Answer::Taken(id)
    }

    /// Gives an item its name.
    fn enter(&mut self, parcel: Parcel<T>) -> Taken<Stored<T>> {
        let Parcel { item, ticket, .. } = self.wait_no_more(parcel);
        let id = TicketId(self.next_id);
        self.next_id += 1;
        self.tally.accepted += 1;
        if let Some((keys, key)) = self.keys.as_mut().zip(ticket.key.clone()) {
            let position = self.journal.as_ref().map_or_else(Position::default, |journal| journal.last);
            keys.remember(key, First { id, position }, self.now);
        }
        Taken { item: Stored::new(item), id, ticket, arrived: self.now }
    }

    /// Takes in an item for which there is no room, to lie among the dead letters.
    fn take_in_dead(&mut self, parcel: Parcel<T>) -> Answer<T> {
        if self.journal.is_some() {
            return self.note(parcel, Some(Cause::Overflow));
        }
        let taken = self.enter(parcel);
        let id = taken.id;
        self.bury(taken, Cause::Overflow);
        Answer::Taken(id)
    }

    /// Tells the store of an item. Its room is taken from now on, and nobody can take it yet.
    fn note(&mut self, parcel: Parcel<T>, cause: Option<Cause>) -> Answer<T> {
        let Some(journal) = &mut self.journal else {
            return Answer::Rejected(self.reject(parcel, Rejection::Durable));
        };
        let id = TicketId(self.next_id);
        if let Err(error) = journal.accept(id, &parcel.encoded, &parcel.ticket, self.now) {
            return Answer::Rejected(self.reject(parcel, error.into()));
        }
        if let Some(cause) = &cause {
            journal.mention(Entry::Dead { id, cause: cause.as_str() });
        }
        let position = journal.last;
        let taken = self.enter(parcel);
        self.outside.add(&taken.ticket);
        Answer::Noted(Noted { taken, position, cause })
    }

    /// Lets the item go that has waited longest; `false` if none waits.
    fn drop_oldest(&mut self) -> bool {
        let oldest = self.line.iter().next().map(|(id, _)| id);
        let Some(taken) = oldest.and_then(|id| self.line.pull(id)) else { return false };
        self.tally.dropped += 1;
        self.let_go(taken, Why::Oldest);
        true
    }

    fn hold_back(&mut self, offer: &mut Offer<T>, mut parcel: Parcel<T>, brake: &Brake) -> Progress {
        let due = self.now.saturating_add(brake.wait());
        let progress = match brake {
            Brake::All(_) => {
                self.expect(due);
                Progress::Blocked
            }
            Brake::Owner(_) => {
                if parcel.queueing == Queueing::New {
                    self.throttle.wait(&parcel.ticket.owner, self.now);
                    parcel.queueing = Queueing::Back;
                }
                Progress::Later(due)
            }
        };
        offer.parcel = Some(parcel);
        progress
    }

    /// However its way ends, an item that waited for its owner's token waits no more.
    fn wait_no_more(&mut self, mut parcel: Parcel<T>) -> Parcel<T> {
        if parcel.queueing == Queueing::Back {
            self.throttle.wait_no_more(&parcel.ticket.owner);
            parcel.queueing = Queueing::New;
        }
        parcel
    }

    fn reject(&mut self, parcel: Parcel<T>, reason: Rejection) -> Rejected<T> {
        self.tally.rejected.count(&reason);
        self.wait_no_more(parcel).reject(reason)
    }

    /// Refuses for want of room, which will come as fast as items leave.
    fn reject_for_room(&mut self, parcel: Parcel<T>, reason: Rejection) -> Rejected<T> {
        let mut rejected = self.reject(parcel, reason);
        if rejected.reason != Rejection::Closed {
            let pace = self.flow.per_second(self.now).filter(|pace| *pace > 0.0);
            rejected.retry_after = pace.and_then(|pace| Duration::try_from_secs_f64(1.0 / pace).ok());
        }
        rejected
    }
}
