//! Putting items in: at once, with patience, or many in one go.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::coop::consume_budget;
use tokio::time::timeout;

use super::books::{Answer, Books, Noted, Offer, Parcel, Patience};
use super::gone::Adopt;
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
    /// the queue as soon as it is on disk.
    ///
    /// # Errors
    /// Gives the item back when the queue is closed, the item is too late, or the store fails; and when there is no
    /// room and the queue is not one that lets putters wait.
    pub async fn put(&self, item: T, ticket: Ticket) -> Result<TicketId, Rejected<T>> {
        self.keep_time();
        consume_budget().await;
        let (item, ticket) = match self.put_at_once(item, ticket) {
            Ok(id) => return Ok(id),
            Err(back) => back,
        };
        let offer = Offer::one(self.parcel(item, ticket), Patience::Waits);
        let offer = self.shared.exchange.offer(|| self.shared.clock.now(), offer).await;
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
        let (item, ticket) = match self.put_at_once(item, ticket) {
            Ok(id) => return Ok(id),
            Err(back) => back,
        };
        let mut offer = Offer::one(self.parcel(item, ticket), Patience::Hurries);
        self.shared.exchange.offer_or_turn_away(self.shared.clock.now(), &mut offer);
        match offer.into_answer().expect(ANSWERED) {
            Answer::Taken(id) | Answer::Known(First { id, .. }, _) => Ok(id),
            Answer::Rejected(rejected) => Err(*rejected),
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
        let mut items = items.into_iter().collect::<Vec<_>>().into_iter();
        let mut taken = Vec::with_capacity(items.len());
        consume_budget().await;
        let now = self.shared.clock.now();
        let exchange = &self.shared.exchange;
        exchange.unless_someone_waits(now, |books| books.take_in_many_at_once(&mut items, &mut taken));
        if items.as_slice().is_empty() {
            return Ok(taken);
        }
        let offer = Offer::many(items.map(|(item, ticket)| self.parcel(item, ticket)).collect());
        let (answers, rest) = exchange.offer(|| self.shared.clock.now(), offer).await.into_answers();
        let mut unsettled = Unsettled { shared: &self.shared, answers: answers.into() };
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

    /// Puts an item in if that needs no wait, neither for room nor for a store; else it comes back.
    #[inline]
    fn put_at_once(&self, item: T, ticket: Ticket) -> Result<TicketId, (T, Ticket)> {
        let mut back = Some((item, ticket));
        let put = |books: &mut Books<T>| {
            let (item, ticket) = back.take().expect(ANSWERED);
            books.take_in_at_once(item, ticket).map_err(|kept| back = Some(kept))
        };
        let id = self.shared.exchange.unless_someone_waits(self.shared.clock.now(), put);
        id.and_then(Result::ok).ok_or_else(|| back.expect(ANSWERED))
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
        let mut unsettled = Unsettled { shared: &self.shared, answers: VecDeque::from([answer]) };
        unsettled.settle_next().await
    }
}

/// Answers that are still on their way to the disk. Dropped, it leaves what was noted to be settled by someone else.
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
            (Answer::Rejected(rejected), _) => Err(*rejected),
            (Answer::Known(_, parcel), Err(error)) => Err(parcel.reject(error.into())),
            (Answer::Noted(noted), Ok(())) => {
                let id = noted.id();
                self.shared.with(|books| books.settle(*noted));
                Ok(id)
            }
            (Answer::Noted(noted), Err(error)) => {
                let reason = Rejection::from(error);
                Err(self.shared.with(|books| books.unsettle(*noted, reason)))
            }
        }
    }
}

impl<T> Drop for Unsettled<'_, T> {
    fn drop(&mut self) {
        let answers = std::mem::take(&mut self.answers);
        if answers.iter().any(|answer| answer.position().is_some()) {
            drop(self.shared.with(|books| books.orphan(answers)));
        }
    }
}

/// Items on their way to the disk whose putters went away. Should the runtime end before the disk answers, they count
/// as settled: nobody was told so, and a store that is opened again knows better.
struct Adopted<T> {
    shared: Arc<Shared<T>>,
    noted: VecDeque<Noted<T>>,
}

impl<T> Adopted<T> {
    async fn settle(mut self) {
        while let Some((position, store)) =
            self.noted.front().map(|noted| noted.position).zip(self.shared.store())
        {
            let settled = store.settled(position).await;
            let noted = self.noted.pop_front();
            drop(self.shared.with(|books| match settled {
                Ok(()) => {
                    noted.into_iter().for_each(|noted| books.settle(noted));
                    None
                }
                Err(error) => noted.map(|noted| books.unsettle(noted, error.into())),
            }));
        }
    }
}

impl<T> Drop for Adopted<T> {
    fn drop(&mut self) {
        let noted = std::mem::take(&mut self.noted);
        if !noted.is_empty() {
            self.shared.with(|books| noted.into_iter().for_each(|noted| books.settle(noted)));
        }
    }
}

/// What sees to orphans of a durable queue.
pub(super) fn adoption<T: Send + 'static>(shared: Weak<Shared<T>>) -> Adopt<T> {
    Arc::new(move |orphans| {
        let Some(shared) = shared.upgrade() else { return };
        let adopted = Adopted { shared, noted: orphans.into() };
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(adopted.settle());
        }
    })
}
