//! Putting items in: at once, with patience, or many in one go.

use std::collections::VecDeque;
use std::pin::pin;
use std::time::Duration;

use tokio::task::coop::cooperative;
use tokio::time::timeout;

use super::books::{Answer, Offer, Parcel, Patience};
use super::keys::First;
use super::rejected::{PutManyError, Rejected, Rejection};
use super::{Queue, Shared, Ticket, TicketId};

/// A queue is asked only for offers that it has answered.
const ANSWERED: &str = "an offer comes back when it has an answer";

impl<T: Send + 'static> Queue<T> {
    /// Puts an item in, and waits for room and for its turn behind those who wait already; in a durable queue also until
    /// the item is on disk. An item with a key that the queue knows is not taken again: the answer is the name of the
    /// first one.
    ///
    /// Dropped while it waits for room, this takes the item back. Dropped while it waits for the disk, the item is in
    /// the queue.
    ///
    /// # Errors
    /// Gives the item back when the queue is closed, the item is too late, or the store fails; and when there is no
    /// room and the queue is not one that lets putters wait.
    pub async fn put(&self, item: T, ticket: Ticket) -> Result<TicketId, Rejected<T>> {
        self.keep_time();
        let offer = Offer::one(self.parcel(item, ticket), Patience::Waits);
        let offer = cooperative(self.shared.exchange.offer(|| self.shared.clock.now(), offer)).await;
        self.conclude(offer).await
    }

    /// Puts an item in if there is room for it now.
    ///
    /// # Errors
    /// As [`Queue::put`], and gives the item back when it would have to wait; then it says for how long, if it can. A
    /// durable queue takes nothing this way, since the disk needs time: there, use [`Queue::put_timeout`].
    pub fn try_put(&self, item: T, ticket: Ticket) -> Result<TicketId, Rejected<T>> {
        if self.shared.memory.is_some() {
            return Err(Parcel::new(item, ticket, Vec::new()).reject(Rejection::Durable));
        }
        let offer = Offer::one(self.parcel(item, ticket), Patience::Hurries);
        let offer = self.shared.exchange.offer_at_once(self.shared.clock.now(), offer);
        match offer.into_answer().expect(ANSWERED) {
            Answer::Taken(id) | Answer::Known(First { id, .. }, _) => Ok(id),
            Answer::Rejected(rejected) => Err(rejected),
            Answer::Noted(_) => unreachable!("only a durable queue notes"),
        }
    }

    /// Puts an item in, and waits at most so long for room. The time that the disk needs is not counted.
    ///
    /// # Errors
    /// As [`Queue::put`], and gives the item back when there was no room in that time.
    pub async fn put_timeout(
        &self,
        item: T,
        ticket: Ticket,
        time: Duration,
    ) -> Result<TicketId, Rejected<T>> {
        self.keep_time();
        let offer = Offer::one(self.parcel(item, ticket), Patience::Waits);
        let mut offering = pin!(self.shared.exchange.offer(|| self.shared.clock.now(), offer));
        let offer = match timeout(time, offering.as_mut()).await {
            Ok(offer) => offer,
            Err(_) => offering.as_mut().get_mut().retract().expect("an offer that waits can be taken back"),
        };
        if offer.is_answered() {
            return self.conclude(offer).await;
        }
        Err(self.shared.with(|books| books.time_out(offer)).expect("an offer without an answer has its item"))
    }

    /// Puts several items in, in order, as [`Queue::put`] does; they may leave before the last one has room.
    ///
    /// # Errors
    /// Stops at the first item that is refused.
    pub async fn put_many(
        &self,
        items: impl IntoIterator<Item = (T, Ticket)>,
    ) -> Result<Vec<TicketId>, PutManyError<T>> {
        self.keep_time();
        let parcels: Vec<_> = items.into_iter().map(|(item, ticket)| self.parcel(item, ticket)).collect();
        if parcels.is_empty() {
            return Ok(Vec::new());
        }
        let offer = Offer::many(parcels);
        let offer = cooperative(self.shared.exchange.offer(|| self.shared.clock.now(), offer)).await;
        let (answers, rest) = offer.into_answers();
        let mut unsettled = Unsettled { shared: &self.shared, answers: answers.into() };
        let mut taken = Vec::with_capacity(unsettled.answers.len());
        let mut refused = Vec::new();
        while !unsettled.answers.is_empty() {
            match unsettled.settle_next().await {
                Ok(id) => taken.push(id),
                Err(refusal) => refused.push(refusal),
            }
        }
        let mut refused = refused.into_iter();
        let Some(rejected) = refused.next() else { return Ok(taken) };
        let refused = refused.map(|rejected| (rejected.item, rejected.ticket));
        let rest = rest.into_iter().map(Parcel::unpack);
        Err(PutManyError { taken, rejected, rest: refused.chain(rest).collect() })
    }

    /// An item with what the store is to keep of it.
    fn parcel(&self, item: T, mut ticket: Ticket) -> Parcel<T> {
        let mut encoded = Vec::new();
        if let Some(memory) = &self.shared.memory {
            (memory.encode)(&item, &mut encoded);
            if ticket.bytes == 0 {
                ticket.bytes = encoded.len() as u64;
            }
        }
        Parcel::new(item, ticket, encoded)
    }

    /// Waits until the answer to an offer of one item holds.
    async fn conclude(&self, offer: Offer<T>) -> Result<TicketId, Rejected<T>> {
        let answer = offer.into_answer().expect(ANSWERED);
        if let Answer::Taken(id) = answer {
            return Ok(id);
        }
        let mut unsettled = Unsettled { shared: &self.shared, answers: VecDeque::from([answer]) };
        unsettled.settle_next().await
    }
}

/// Answers that are still on their way to the disk. What was noted is in the queue, whether someone waits for it or
/// not, unless the store fails.
struct Unsettled<'a, T> {
    shared: &'a Shared<T>,
    answers: VecDeque<Answer<T>>,
}

impl<T> Unsettled<'_, T> {
    /// Waits until the first answer holds.
    async fn settle_next(&mut self) -> Result<TicketId, Rejected<T>> {
        let settled = match (self.answers.front().and_then(Answer::position), self.shared.store()) {
            (Some(position), Some(store)) => store.settled(position).await,
            _ => Ok(()),
        };
        let answer = self.answers.pop_front().expect(ANSWERED);
        match (answer, settled) {
            (Answer::Taken(id), _) | (Answer::Known(First { id, .. }, _), Ok(())) => Ok(id),
            (Answer::Rejected(rejected), _) => Err(rejected),
            (Answer::Known(_, parcel), Err(error)) => Err(parcel.reject(error.into())),
            (Answer::Noted(noted), Ok(())) => {
                let id = noted.id();
                self.shared.with(|books| books.settle(noted));
                Ok(id)
            }
            (Answer::Noted(noted), Err(error)) => {
                let reason = Rejection::from(error);
                Err(self.shared.with(|books| books.unsettle(noted, reason)))
            }
        }
    }
}

impl<T> Drop for Unsettled<'_, T> {
    fn drop(&mut self) {
        let answers = std::mem::take(&mut self.answers);
        if answers.iter().any(|answer| answer.position().is_some()) {
            drop(self.shared.with(|books| books.keep_noted(answers)));
        }
    }
}
