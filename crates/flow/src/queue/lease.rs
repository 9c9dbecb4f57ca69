//! An item that is out: the right to serve it, for a time, and to say how that went.

use std::fmt;
use std::future::Future;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::books::{Acknowledged, Books, Goods};
use super::dead_letters::Cause;
use super::past::{Attempt, Ending};
use super::store::StoreError;
use super::{Shared, Ticket, TicketId};

/// An item that was taken and is not acknowledged yet.
///
/// It reads like the item. Exactly one of [`Lease::ack`] (or [`Lease::ack_many`]), [`Lease::nack`] and [`Lease::dead_letter`] ends it; dropped
/// without, it gives the item back at once. If the queue's leases run out and this one does, the item goes to another
/// taker, and whatever is then said through this lease is refused.
#[must_use = "a lease that is dropped gives its item back"]
pub struct Lease<T> {
    shared: Arc<Shared<T>>,
    /// `None` only while the lease is being consumed.
    goods: Option<Goods<T>>,
}

/// What a lease is told when it cannot do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LeaseError {
    /// The lease has run out, and the item went back into the queue; what was said through it counts for nothing.
    #[error(
        "the lease on item {} ended before attempt {attempt} did, so the item is someone else's; extend leases in \
         time or let them run longer", id.0
    )]
    Ended {
        /// The item.
        id: TicketId,
        /// The attempt.
        attempt: u32,
    },
    /// The store did not keep what was said; the item went back into the queue.
    #[error("the item went back into the queue: {0}")]
    Store(#[from] StoreError),
}

/// So often a lease is renewed in the time that it runs, so that two beats may be late.
const BEATS: u32 = 3;
const SHORTEST_BEAT: Duration = Duration::from_millis(1);
const HELD: &str = "a lease holds its goods until it is consumed";

impl<T> Lease<T> {
    pub(super) fn new(shared: Arc<Shared<T>>, goods: Goods<T>) -> Self {
        Self { shared, goods: Some(goods) }
    }

    fn goods(&self) -> &Goods<T> {
        self.goods.as_ref().expect(HELD)
    }

    /// The name of the item's stay.
    pub fn id(&self) -> TicketId {
        self.goods().taken.id()
    }

    /// The ticket with which it came.
    pub fn ticket(&self) -> Ticket {
        self.goods().taken.ticket()
    }

    /// The how-manieth time this is that the item is out, counted from 1.
    pub fn attempt(&self) -> u32 {
        self.goods().attempt
    }

    /// How the last attempts ended.
    pub fn history(&self) -> &[Attempt] {
        &self.goods().history
    }

    /// How long the item had waited when it was taken, since it was put.
    pub fn waited(&self) -> Duration {
        let goods = self.goods();
        goods.since.saturating_sub(goods.taken.arrived())
    }

    /// Serving the item has cost so much, which may be more or less than its ticket said. Policies that share by cost
    /// go by it from now on.
    /// It counts when the lease is acknowledged.
    pub fn charge(&mut self, cost: u64) {
        self.goods.as_mut().expect(HELD).charged = Some(cost);
    }

    /// Lets the lease run for so long from now on, if leases of this queue run out.
    ///
    /// # Errors
    /// When it has run out already.
    pub fn extend(&self, time: Duration) -> Result<(), LeaseError> {
        let goods = self.goods();
        let is_held = self.shared.with(|books| books.extend(goods, time));
        if is_held { Ok(()) } else { Err(goods.ended()) }
    }

    /// Does work and renews the lease for as long as that takes, so that the work may take longer than leases run. If
    /// the lease is lost all the same, because this task stood still for too long, the item is someone else's by then,
    /// and the work is dropped where it is.
    ///
    /// Work that hangs keeps its item: give it a timeout.
    ///
    /// # Errors
    /// When the lease has run out.
    pub async fn with_heartbeat<W: Future>(&self, work: W) -> Result<W::Output, LeaseError> {
        let heartbeat = async {
            let Some(time) = self.time() else { return std::future::pending().await };
            loop {
                sleep((time / BEATS).max(SHORTEST_BEAT)).await;
                if let Err(lost) = self.extend(time) {
                    return lost;
                }
            }
        };
        // Work that is ready at once pays for neither the lock nor the timer.
        tokio::select! {
            biased;
            output = work => Ok(output),
            lost = heartbeat => Err(lost),
        }
    }

    /// How long leases of this queue run, if this one runs out.
    fn time(&self) -> Option<Duration> {
        self.goods().lease?;
        self.shared.with(|books| books.settings.visibility.as_ref().map(|visibility| visibility.time))
    }

    /// The item is done. In a durable queue this returns when that survives a power loss.
    ///
    /// Dropped before it was polled, this gives the item back; dropped later, the acknowledgement stands, and in a
    /// durable queue may or may not have reached the disk.
    ///
    /// # Errors
    /// When the lease has run out, or the store failed; then the item is not done.
    pub async fn ack(mut self) -> Result<(), LeaseError> {
        let goods = self.goods();
        let position = self.shared.with(|books| books.acknowledge(goods))?.position;
        let goods = self.goods.take();
        let Some((position, store)) = position.zip(self.shared.store()) else { return Ok(()) };
        let mut settling = Settling { shared: Arc::clone(&self.shared), goods: goods.into_iter().collect() };
        let settled = store.settled(position).await;
        if settled.is_err() {
            settling.fail(0);
        }
        Ok(settled?)
    }

    /// Acknowledges several items, which may be of several queues, as [`Lease::ack`] does one. They are noted and waited for
    /// together, so that many cost a durable queue little more than one. The answers are in the order of the leases.
    ///
    /// Dropped before it was polled, this gives all of them back; dropped later, the acknowledgements stand.
    pub async fn ack_many(leases: impl IntoIterator<Item = Self>) -> Vec<Result<(), LeaseError>> {
        let mut leases: Vec<Self> = leases.into_iter().collect();
        let mut answers = Vec::with_capacity(leases.len());
        let mut noted = Vec::new();
        for run in leases.chunk_by_mut(|one, other| Arc::ptr_eq(&one.shared, &other.shared)) {
            let shared = Arc::clone(&run[0].shared);
            let each = |books: &mut Books<T>| {
                run.iter().map(|lease| books.acknowledge(lease.goods())).collect::<Vec<_>>()
            };
            let acknowledged = shared.with(each);
            let (mut positions, mut goods) = (Vec::new(), Vec::new());
            for (lease, acknowledged) in run.iter_mut().zip(acknowledged) {
                match acknowledged {
                    Ok(Acknowledged { position, .. }) => {
                        let done = lease.goods.take();
                        for (position, done) in position.into_iter().zip(done) {
                            positions.push((position, answers.len()));
                            goods.push(done);
                        }
                        answers.push(Ok(()));
                    }
                    Err(error) => {
                        drop(shared.with(|books| books.give_back(&mut lease.goods, Ending::Returned)));
                        answers.push(Err(error));
                    }
                }
            }
            noted.push((Settling { shared, goods }, positions));
        }
        for (mut settling, positions) in noted {
            let shared = Arc::clone(&settling.shared);
            let Some(store) = shared.store() else { continue };
            // The last is waited for first: then the others are settled, and nobody has to be told of each of them.
            for (at, (position, answer)) in positions.iter().enumerate().rev() {
                if let Err(error) = store.settled(*position).await {
                    settling.fail(at);
                    answers[*answer] = Err(error.into());
                }
            }
        }
        answers
    }

    /// The item could not be served this time: it may be taken again after that time, or goes among the dead letters
    /// if it was out as often as it may be.
    ///
    /// # Errors
    /// When the lease has run out.
    pub async fn nack(mut self, after: Duration) -> Result<(), LeaseError> {
        let goods = &mut self.goods;
        drop(self.shared.with(|books| books.give_back(goods, Ending::Nacked(after))));
        self.goods.as_ref().map_or(Ok(()), |goods| Err(goods.ended()))
    }

    /// Nobody can serve the item: it goes among the dead letters with that cause.
    ///
    /// # Errors
    /// When the lease has run out, or the store failed.
    pub async fn dead_letter(mut self, cause: impl Into<String>) -> Result<(), LeaseError> {
        let (id, cause) = (self.id(), Cause::Verdict(cause.into()));
        let goods = &mut self.goods;
        let (_copy, position) = self.shared.with(|books| {
            (books.condemn(goods, cause), books.journal.as_ref().and_then(|journal| journal.last))
        });
        if let Some(goods) = &self.goods {
            return Err(goods.ended());
        }
        let Some((position, store)) = position.zip(self.shared.store()) else { return Ok(()) };
        let settled = store.settled(position).await;
        if settled.is_err() {
            self.shared.with(|books| books.uncondemn(id));
        }
        Ok(settled?)
    }
}

impl<T> Goods<T> {
    pub(super) fn ended(&self) -> LeaseError {
        LeaseError::Ended { id: self.taken.id(), attempt: self.attempt }
    }
}

/// Acknowledgements on their way to the disk. Unless they fail, they stand, whether someone waits for them or not.
struct Settling<T> {
    shared: Arc<Shared<T>>,
    goods: Vec<Goods<T>>,
}

impl<T> Settling<T> {
    /// One of them failed. Those behind it may stand in another order afterwards.
    fn fail(&mut self, at: usize) {
        let goods = self.goods.swap_remove(at);
        self.shared.with(|books| books.unacknowledge(goods));
    }
}

impl<T> Drop for Settling<T> {
    fn drop(&mut self) {
        if !self.goods.is_empty() {
            self.shared.with(|books| self.goods.iter().for_each(|goods| books.finish(goods)));
        }
    }
}

impl<T> Deref for Lease<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.goods().taken.item
    }
}

impl<T> Drop for Lease<T> {
    fn drop(&mut self) {
        if self.goods.is_some() {
            let goods = &mut self.goods;
            drop(self.shared.with(|books| books.give_back(goods, Ending::Returned)));
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for Lease<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lease = f.debug_struct("Lease");
        if let Some(goods) = &self.goods {
            let taken = &goods.taken;
            lease.field("item", &taken.item).field("id", &taken.id()).field("attempt", &goods.attempt);
        }
        lease.finish_non_exhaustive()
    }
}
