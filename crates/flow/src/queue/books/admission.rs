//! How an item comes in: what may keep it out, and in what order that is asked.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use crate::queue::dead_letters::Cause;
use crate::queue::gone::Why;
use crate::queue::keys::First;
use crate::queue::lanes::Batch;
use crate::queue::moment::Moment;
use crate::queue::rejected::{Rejected, Rejection};
use crate::queue::settings::{Doomed, Overflow};
use crate::queue::stock::Progress;
use crate::queue::store::Entry;
use crate::queue::taken::Parts;
use crate::queue::throttle::{Brake, Queueing};
use crate::queue::ticket::Load;
use crate::queue::{Capacity, Taken, Ticket, TicketId};

use super::Books;
use super::offer::{Answer, Noted, Offer, Parcel, Patience};

/// What keeps an item out.
enum Obstacle {
    Known(First),
    Full(Rejection),
    Slow(Brake),
    Final(Rejection),
}

impl<T> Books<T> {
    pub(super) fn consider(&mut self, offer: &mut Offer<T>) -> Progress {
        if !offer.batch.is_empty()
            && let Some(progress) = self.consider_batch(offer)
        {
            return progress;
        }
        while let Some(parcel) = offer.parcel() {
            if let Some(obstacle) = self.obstacle(&parcel.ticket, parcel.queueing) {
                if let Some(progress) = self.meet(offer, obstacle) {
                    return progress;
                }
            } else if let Some(parcel) = offer.next() {
                let answer = self.take_in(parcel);
                offer.answer(answer);
            }
        }
        Progress::Finished
    }

    /// Takes in as much of the batch of an offer as there is room for. `None` goes on with what is behind it, or with its
    /// items one by one where something else than their number may keep one out.
    fn consider_batch(&mut self, offer: &mut Offer<T>) -> Option<Progress> {
        let room = self.settings.capacity.items.saturating_sub(self.depth());
        let rest = (room < offer.batch.len()).then(|| offer.batch.split_off(room));
        offer.taken.extend(self.take_in_batch_at_once(&mut offer.batch).map(TicketId));
        let is_taken = offer.batch.is_empty();
        match rest {
            None if is_taken => return None,
            Some(rest) if is_taken => offer.batch = rest,
            Some(rest) => offer.batch.append(rest),
            None => {}
        }
        let waits = self.settings.overflow == Overflow::Wait && offer.patience == Patience::Waits;
        if is_taken && waits && self.takes_batches() {
            return Some(Progress::Blocked);
        }
        offer.take_apart();
        None
    }

    /// Whether a lack of room is all that may keep out an item with nothing rare.
    fn takes_batches(&self) -> bool {
        self.journal.is_none() && self.throttle.is_open() && !self.line.is_closed()
    }

    /// Takes an item in if nothing keeps it out and no store is to be told; else it stays where it is.
    #[inline(always)]
    pub(in crate::queue) fn take_in_at_once(
        &mut self,
        item: &mut Option<T>,
        ticket: &mut Ticket,
    ) -> Option<TicketId> {
        if self.journal.is_some() || self.obstacle(ticket, Queueing::New).is_some() {
            return None;
        }
        let id = self.name(ticket);
        self.stow(id, self.now, ticket, item.take()?);
        Some(id)
    }

    /// Takes in a batch of items if nothing keeps any of them out and no store is to be told; else it stays where it
    /// is. The answer are the numbers of those that were taken in.
    pub(in crate::queue) fn take_in_batch_at_once(&mut self, batch: &mut Batch<T>) -> Range<u64> {
        let first = self.next_id;
        let count = batch.len();
        let has_room =
            |held: u64, more: u64, bound: u64| held.checked_add(more).is_some_and(|sum| sum <= bound);
        let Capacity { items, cost, bytes } = self.settings.capacity;
        if self.takes_batches()
            && !batch.is_empty()
            && self.depth().checked_add(count).is_some_and(|depth| depth <= items)
            && has_room(self.cost(), batch.cost(), cost)
            && has_room(self.bytes(), batch.bytes(), bytes)
        {
            self.next_id += count as u64;
            self.tally.accepted += count as u64;
            self.line.admit_batch(TicketId(first), self.now, std::mem::take(batch));
        }
        first..self.next_id
    }

    /// Deals with what keeps an item out: `None` goes on with what is next, or with the same item once more.
    #[cold]
    fn meet(&mut self, offer: &mut Offer<T>, obstacle: Obstacle) -> Option<Progress> {
        let brake = match (&obstacle, self.settings.overflow, offer.patience) {
            (Obstacle::Full(_), Overflow::Wait, Patience::Waits) => return Some(Progress::Blocked),
            (Obstacle::Full(_), Overflow::DropOldest, _) if self.drop_oldest() => return None,
            (Obstacle::Slow(brake), _, Patience::Waits) => {
                return Some(self.hold_back(offer.parcel_mut()?, brake));
            }
            (Obstacle::Slow(brake), ..) => Some(brake.wait()),
            _ => None,
        };
        let mut parcel = offer.next()?;
        let mut rejected = match obstacle {
            Obstacle::Known(first) => {
                self.tally.duplicates += 1;
                self.wait_no_more(&mut parcel);
                offer.answer(Answer::Known(first, Box::new(parcel)));
                return None;
            }
            Obstacle::Full(_) if self.settings.overflow == Overflow::DeadLetter => {
                let answer = self.take_in_dead(parcel);
                offer.answer(answer);
                return None;
            }
            Obstacle::Full(why) => self.reject_for_room(parcel, why),
            Obstacle::Slow(_) => self.reject(parcel, Rejection::Rate),
            Obstacle::Final(why) => self.reject(parcel, why),
        };
        rejected.retry_after = rejected.retry_after.or(brake);
        offer.answer(Answer::Rejected(Box::new(rejected)));
        Some(Progress::Finished)
    }

    /// Refuses an offer that will not wait behind those who do.
    pub(super) fn decline(&mut self, offer: &mut Offer<T>) {
        if let Some(parcel) = offer.next() {
            let why = if self.line.is_closed() { Rejection::Closed } else { Rejection::Turn };
            let rejected = self.reject_for_room(parcel, why);
            offer.answer(Answer::Rejected(Box::new(rejected)));
        }
    }

    /// Sorts out an offer whose owner went away. What was noted is in the queue once it is settled, since the store keeps
    /// it then and its key counts as used.
    pub(super) fn finish_abandoned(&mut self, mut offer: Offer<T>) -> Option<Offer<T>> {
        if let Some(parcel) = offer.parcel_mut() {
            self.wait_no_more(parcel);
        }
        let answers = std::mem::take(&mut offer.answers).into_iter().chain(offer.answer.take());
        offer.answers = self.orphan(answers);
        Some(offer)
    }

    /// Leaves what was noted to be settled by someone else; the other answers come back.
    pub(in crate::queue) fn orphan(
        &mut self,
        answers: impl IntoIterator<Item = Answer<T>>,
    ) -> Vec<Answer<T>> {
        let mut others = Vec::new();
        for answer in answers {
            match answer {
                Answer::Noted(noted) => self.orphans.push(*noted),
                other => others.push(other),
            }
        }
        others
    }

    /// What the store has settled is in the queue.
    pub(in crate::queue) fn settle(&mut self, noted: Noted<T>) {
        let Noted { taken, cause, .. } = noted;
        self.outside.subtract(taken.load());
        match cause {
            None => self.admit(taken),
            Some(cause) => self.bury(taken, cause),
        }
    }

    /// What the store could not settle is not in the queue.
    pub(in crate::queue) fn unsettle(&mut self, noted: Noted<T>, reason: Rejection) -> Rejected<T> {
        self.outside.subtract(noted.taken.load());
        let Parts { item, id, ticket, .. } = noted.taken.into_parts();
        self.tally.accepted -= 1;
        self.tally.rejected.count(&reason);
        if let Some((keys, key)) = self.keys.as_mut().zip(ticket.key.as_deref()) {
            keys.forget(key, id);
        }
        self.journal.iter_mut().for_each(|journal| journal.take_back(id));
        Rejected { item, ticket, reason, retry_after: None }
    }

    /// Gives an item back that has waited for room as long as it was to.
    pub(in crate::queue) fn time_out(&mut self, mut offer: Offer<T>) -> Option<Rejected<T>> {
        offer.next().map(|parcel| self.reject_for_room(parcel, Rejection::TimedOut))
    }

    /// Asks what costs least first, and for tokens last, since asking takes them.
    #[inline(always)]
    fn obstacle(&mut self, ticket: &Ticket, queueing: Queueing) -> Option<Obstacle> {
        if self.line.is_closed() {
            return Some(Obstacle::Final(Rejection::Closed));
        }
        if let Some((keys, key)) = self.keys.as_mut().zip(ticket.key.as_deref())
            && let Some(first) = keys.seen(key, self.now.time())
        {
            return Some(Obstacle::Known(first));
        }
        if let Some(why) = self.lateness(ticket) {
            return Some(Obstacle::Final(why));
        }
        if let Some(why) = self.crowding(ticket) {
            return Some(Obstacle::Full(why));
        }
        if self.throttle.is_open() {
            return None;
        }
        self.throttle.pass(&ticket.owner, self.now.time(), queueing).err().map(Obstacle::Slow)
    }

    fn lateness(&self, ticket: &Ticket) -> Option<Rejection> {
        let deadline = ticket.deadline?;
        if deadline <= self.now.time() {
            return Some(Rejection::Expired);
        }
        let service = self.service.median()?;
        let is_doomed = deadline < self.now.time().saturating_add(service);
        (is_doomed && self.settings.doomed == Doomed::Reject).then_some(Rejection::Doomed { service })
    }

    /// The bound under which there is no room for it. What alone is larger than a bound goes into an empty queue.
    #[inline(always)]
    fn crowding(&self, ticket: &Ticket) -> Option<Rejection> {
        let held = Load { items: self.depth(), cost: self.cost(), bytes: self.bytes() };
        self.settings.capacity.objection(held, ticket.cost, ticket.bytes).map(Rejection::from)
    }

    #[inline]
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
    #[inline]
    fn enter(&mut self, mut parcel: Parcel<T>) -> Taken<T> {
        self.wait_no_more(&mut parcel);
        let Parcel { item, ticket, .. } = parcel;
        Taken::new(item, self.name(&ticket), ticket, self.now.time())
    }

    /// The name of an item that is taken in.
    #[inline(always)]
    fn name(&mut self, ticket: &Ticket) -> TicketId {
        let id = TicketId(self.next_id);
        self.next_id += 1;
        self.tally.accepted += 1;
        if let Some((keys, key)) = self.keys.as_mut().zip(ticket.key.as_ref()) {
            let position = self.journal.as_ref().and_then(|journal| journal.last);
            keys.remember(Arc::clone(key), First { id, position }, self.now.time());
        }
        id
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
            return Answer::Rejected(Box::new(self.reject(parcel, Rejection::Durable)));
        };
        let id = TicketId(self.next_id);
        let position = match journal.accept(id, &parcel.encoded, &parcel.ticket, self.now.time()) {
            Ok(position) => position,
            Err(error) => return Answer::Rejected(Box::new(self.reject(parcel, error.into()))),
        };
        if let Some(cause) = &cause {
            journal.mention(Entry::Dead { id, cause: cause.as_str() });
        }
        let taken = self.enter(parcel);
        self.outside.add(taken.load());
        Answer::Noted(Box::new(Noted { taken, position, cause }))
    }

    /// Lets the item go that has waited longest; `false` if none waits.
    fn drop_oldest(&mut self) -> bool {
        let oldest = self.line.oldest().map(|(id, _)| id);
        let Some(taken) = oldest.and_then(|id| self.line.pull(id)) else { return false };
        self.tally.dropped += 1;
        self.let_go(taken, Why::Oldest);
        true
    }

    fn hold_back(&mut self, parcel: &mut Parcel<T>, brake: &Brake) -> Progress {
        let due = self.now.time().saturating_add(brake.wait());
        if let Brake::All(_) = brake {
            self.expect(due);
            return Progress::Blocked;
        }
        if parcel.queueing == Queueing::New {
            self.throttle.wait(&parcel.ticket.owner, self.now.time());
            parcel.queueing = Queueing::Back;
        }
        Progress::Later(Moment::of(due))
    }

    /// However its way ends, an item that waited for its owner's token waits no more.
    fn wait_no_more(&mut self, parcel: &mut Parcel<T>) {
        if parcel.queueing == Queueing::Back {
            self.throttle.wait_no_more(&parcel.ticket.owner);
            parcel.queueing = Queueing::New;
        }
    }

    fn reject(&mut self, mut parcel: Parcel<T>, reason: Rejection) -> Rejected<T> {
        self.tally.rejected.count(&reason);
        self.wait_no_more(&mut parcel);
        parcel.reject(reason)
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
