//! Taking items out: on lease or for good, one or many, with or without waiting.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::task::coop::{consume_budget, poll_proceed};
use tokio::time::timeout;

use super::books::{Books, Goods, Want, Way};
use super::{Lease, Popped, Queue, Taken, UpTo};

impl<T: Send + 'static> Queue<T> {
    /// Waits for the item that is next and takes it on lease. `None` says that the queue is closed and that nothing can
    /// come any more: nothing waits, is put off or is out.
    ///
    /// Dropped while it waits, this takes nothing.
    #[inline]
    pub fn take(&self) -> impl Future<Output = Option<Lease<T>>> + Send + '_ {
        let patient = || async {
            let want = self.wait_for(Want::new(Way::Lease, UpTo::items(1))).await;
            want.leases.into_first().map(|goods| self.lease(goods))
        };
        Taking {
            queue: self,
            hasty: |queue: &Self, place: &mut _| *place = queue.try_take(),
            patient,
            waiting: None,
        }
    }

    /// Takes the item that is next on lease, if there is one now.
    pub fn try_take(&self) -> Option<Lease<T>> {
        let clock = || self.shared.clock.moment();
        let goods = self.shared.exchange.with_at_pace(clock, Books::lend_at_once)?;
        Some(self.lease(goods))
    }

    /// Waits for the first item and takes it on lease together with others that are there, under one lock. Empty when
    /// the wait was in vain, and when nothing can come any more.
    pub async fn take_many(&self, up_to: impl Into<UpTo>) -> Vec<Lease<T>> {
        let want = self.wait_for_many(Way::Lease, up_to.into()).await;
        want.map_or_else(Vec::new, |want| {
            want.leases.into_vec().into_iter().map(|goods| self.lease(goods)).collect()
        })
    }

    /// Waits for the item that is next and takes it for good: it is gone from the queue, whatever becomes of its taker.
    /// A durable queue does not wait until that is on disk, so the item may come once more after a crash. `None` as for
    /// [`Queue::take`].
    #[inline]
    pub fn pop(&self) -> impl Future<Output = Option<Taken<T>>> + Send + '_ {
        let patient =
            || async { self.wait_for(Want::new(Way::ForGood, UpTo::items(1))).await.items.into_first() };
        Taking {
            queue: self,
            hasty: |queue: &Self, place: &mut _| queue.pop_to(place),
            patient,
            waiting: None,
        }
    }

    /// Takes the item that is next for good, if there is one now.
    #[inline(always)]
    pub fn try_pop(&self) -> Option<Taken<T>> {
        let mut taken = None;
        self.pop_to(&mut taken);
        taken
    }

    #[inline(always)]
    fn pop_to(&self, place: &mut Option<Taken<T>>) {
        self.shared.exchange.with_at_pace(|| self.shared.clock.moment(), |books| books.pop_at_once(place));
    }

    /// Takes as [`Queue::take_many`] does, but for good.
    pub async fn pop_many(&self, up_to: impl Into<UpTo>) -> Popped<T> {
        let want = self.wait_for_many(Way::ForGood, up_to.into()).await;
        want.map_or_else(Popped::default, Want::into_popped)
    }

    fn lease(&self, goods: Goods<T>) -> Lease<T> {
        Lease::new(Arc::clone(&self.shared), goods)
    }

    async fn wait_for(&self, want: Want<T>) -> Want<T> {
        self.shared.exchange.want(|| self.shared.clock.moment(), want).await
    }

    async fn wait_for_many(&self, way: Way, up_to: UpTo) -> Option<Want<T>> {
        self.keep_time();
        consume_budget().await;
        let mut want = Want::new(way, up_to);
        if self.shared.exchange.want_at_once(|| self.shared.clock.moment(), &mut want) {
            return Some(want);
        }
        let waiting = self.wait_for(want);
        match up_to.wait {
            None => Some(waiting.await),
            Some(wait) => timeout(wait, waiting).await.ok(),
        }
    }
}

/// Takes an item: at once if there is one, else as `patient` does.
struct Taking<'a, T, R, H, P> {
    queue: &'a Queue<T>,
    hasty: H,
    patient: P,
    waiting: Option<Pin<Box<dyn Future<Output = Option<R>> + Send + 'a>>>,
}

// Nothing in it is ever pinned but what is in a box.
impl<T, R, H, P> Unpin for Taking<'_, T, R, H, P> {}

impl<'a, T, R, H, P, W> Future for Taking<'a, T, R, H, P>
where
    T: Send + 'static,
    H: Fn(&Queue<T>, &mut Option<R>),
    P: Fn() -> W,
    W: Future<Output = Option<R>> + Send + 'a,
{
    type Output = Option<R>;

    #[inline]
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<R>> {
        let Self { queue, hasty, patient, waiting } = self.get_mut();
        if let Some(waiting) = waiting {
            return waiting.as_mut().poll(context);
        }
        queue.keep_time();
        ready!(poll_proceed(context)).made_progress();
        let mut taken = None;
        hasty(queue, &mut taken);
        if taken.is_some() {
            return Poll::Ready(taken);
        }
        waiting.insert(Box::pin(patient())).as_mut().poll(context)
    }
}
