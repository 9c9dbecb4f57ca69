//! Putting items in: at once, with patience, or many in one go.

use std::collections::VecDeque;
use std::future::Future;
use std::mem;
use std::pin::{Pin, pin};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::coop::{consume_budget, poll_proceed};
use tokio::time::timeout;

use super::books::{Answer, Answers, Books, Noted, Offer, Parcel, Patience};
use super::gone::Adopt;
use super::keys::First;
use super::lanes::Batch;
use super::rejected::{PutManyError, Rejected, Rejection};
use super::{Queue, Shared, Ticket, TicketId};

/// A queue is asked only for offers that it has answered.
const ANSWERED: &str = "an offer comes back when it has an answer";
/// What was not put at once stays where it is.
const KEPT: &str = "an item that is not taken in stays where it is";

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
    #[inline]
    pub fn put(
        &self,
        item: T,
        ticket: Ticket,
    ) -> impl Future<Output = Result<TicketId, Box<Rejected<T>>>> + Send + '_ {
        Putting { queue: self, item: Some(item), ticket, waiting: None }
    }

    /// Puts an item in that could not be put at once.
    async fn put_patiently(&self, item: T, ticket: Ticket) -> Result<TicketId, Box<Rejected<T>>> {
        let offer = Offer::one(self.parcel(item, ticket), Patience::Waits);
        let offer = self.shared.exchange.offer(|| self.shared.clock.moment(), offer).await;
        self.conclude(offer).await
    }

    /// Puts an item in if there is room for it now.
    ///
    /// # Errors
    /// As [`Queue::put`], and gives the item back when it would have to wait; then it says for how long, if it can. A
    /// durable queue takes nothing this way, since the disk needs time: there, use [`Queue::put_timeout`].
    pub fn try_put(&self, item: T, ticket: Ticket) -> Result<TicketId, Box<Rejected<T>>> {
        if self.shared.memory.is_some() {
            return Err(Box::new(Parcel::new(item, ticket, Vec::new()).reject(Rejection::Durable)));
        }
        let (mut item, mut ticket) = (Some(item), ticket);
        if let Some(id) = self.put_at_once(&mut item, &mut ticket) {
            return Ok(id);
        }
        let item = item.expect(KEPT);
        let mut offer = Offer::one(self.parcel(item, ticket), Patience::Hurries);
        self.shared.exchange.offer_or_turn_away(self.shared.clock.moment(), &mut offer);
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
    ) -> Result<TicketId, Box<Rejected<T>>> {
        self.keep_time();
        let offer = Offer::one(self.parcel(item, ticket), Patience::Waits);
        let mut offering = pin!(self.shared.exchange.offer(|| self.shared.clock.moment(), offer));
        let offer = match timeout(time, offering.as_mut()).await {
            Ok(offer) => offer,
            Err(_) => offering.as_mut().get_mut().retract().expect("an offer that waits can be taken back"),
        };
        if offer.is_answered() {
            return self.conclude(offer).await;
        }
        let rejected = self.shared.with(|books| books.time_out(offer));
        Err(Box::new(rejected.expect("an offer without an answer has its item")))
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
        let (mut batch, mut rest) = Batch::gather(items);
        if self.shared.memory.is_some() {
            rest = mem::take(&mut batch).into_items().chain(rest).collect();
        }
        consume_budget().await;
        let (clock, exchange) = (|| self.shared.clock.moment(), &self.shared.exchange);
        let put = |books: &mut Books<T>| books.take_in_batch_at_once(&mut batch);
        let taken = exchange.unless_someone_waits(clock, put).unwrap_or_default();
        let mut taken: Vec<_> = taken.map(TicketId).collect();
        if batch.is_empty() && rest.is_empty() {
            return Ok(taken);
        }
        let rest = rest.into_iter().map(|(item, ticket)| self.parcel(item, ticket));
        let offer = Offer::many(batch, rest.collect());
        let Answers { taken: more, answers, rest } = exchange.offer(clock, offer).await.into_answers();
        taken.extend(more);
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
        Err(PutManyError { taken, rejected: *rejected, rest: refused.chain(rest).collect() })
    }

    /// Puts an item in if that needs no wait, neither for room nor for a store; else it stays where it is.
    #[inline(always)]
    fn put_at_once(&self, item: &mut Option<T>, ticket: &mut Ticket) -> Option<TicketId> {
        let put = |books: &mut Books<T>| books.take_in_at_once(item, ticket);
        self.shared.exchange.unless_someone_waits(|| self.shared.clock.moment(), put).flatten()
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
    async fn conclude(&self, offer: Offer<T>) -> Result<TicketId, Box<Rejected<T>>> {
        let answer = offer.into_answer().expect(ANSWERED);
        let mut unsettled = Unsettled { shared: &self.shared, answers: VecDeque::from([answer]) };
        unsettled.settle_next().await
    }
}

/// Puts an item in. Where it need not wait it is moved once, from here into the line.
struct Putting<'a, T> {
    queue: &'a Queue<T>,
    /// `None` once it is in, or waits.
    item: Option<T>,
    ticket: Ticket,
    waiting: Option<Waiting<'a, T>>,
}

type Waiting<'a, T> = Pin<Box<dyn Future<Output = Result<TicketId, Box<Rejected<T>>>> + Send + 'a>>;

// Nothing in it is ever pinned but what is in a box.
impl<T> Unpin for Putting<'_, T> {}

impl<T: Send + 'static> Future for Putting<'_, T> {
    type Output = Result<TicketId, Box<Rejected<T>>>;

    #[inline]
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { queue, item, ticket, waiting } = self.get_mut();
        if let Some(waiting) = waiting {
            return waiting.as_mut().poll(context);
        }
        queue.keep_time();
        ready!(poll_proceed(context)).made_progress();
        if let Some(id) = queue.put_at_once(item, ticket) {
            return Poll::Ready(Ok(id));
        }
        let item = item.take().expect("a future that has ended is not polled again");
        let patient = queue.put_patiently(item, mem::take(ticket));
        waiting.insert(Box::pin(patient)).as_mut().poll(context)
    }
}

/// Answers that are still on their way to the disk. Dropped, it leaves what was noted to be settled by someone else.
struct Unsettled<'a, T> {
    shared: &'a Shared<T>,
    answers: VecDeque<Answer<T>>,
}

impl<T> Unsettled<'_, T> {
    /// Waits until the first answer holds.
    async fn settle_next(&mut self) -> Result<TicketId, Box<Rejected<T>>> {
        let settled = match (self.answers.front().and_then(Answer::position), self.shared.store()) {
            (Some(position), Some(store)) => store.settled(position).await,
            _ => Ok(()),
        };
        let answer = self.answers.pop_front().expect(ANSWERED);
        match (answer, settled) {
            (Answer::Taken(id), _) | (Answer::Known(First { id, .. }, _), Ok(())) => Ok(id),
            (Answer::Rejected(rejected), _) => Err(rejected),
            (Answer::Known(_, parcel), Err(error)) => Err(Box::new(parcel.reject(error.into()))),
            (Answer::Noted(noted), Ok(())) => {
                let id = noted.id();
                self.shared.with(|books| books.settle(*noted));
                Ok(id)
            }
            (Answer::Noted(noted), Err(error)) => {
                let reason = Rejection::from(error);
                Err(Box::new(self.shared.with(|books| books.unsettle(*noted, reason))))
            }
        }
    }
}

impl<T> Drop for Unsettled<'_, T> {
    fn drop(&mut self) {
        let answers = mem::take(&mut self.answers);
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
        let noted = mem::take(&mut self.noted);
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
