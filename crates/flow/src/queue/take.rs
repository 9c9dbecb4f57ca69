//! Taking items out: on lease or for good, one or many, with or without waiting.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::coop::consume_budget;
use tokio::time::timeout;

use super::books::{Books, Goods, Want, Way};
use super::{Lease, Queue, Taken, UpTo};

impl<T: Send + 'static> Queue<T> {
    /// Waits for the item that is next and takes it on lease. `None` says that the queue is closed and that nothing can
    /// come any more: nothing waits, is put off or is out.
    ///
    /// Dropped while it waits, this takes nothing.
    pub async fn take(&self) -> Option<Lease<T>> {
        self.keep_time();
        consume_budget().await;
        if let Some(lease) = self.try_take() {
            return Some(lease);
        }
        let want = self.wait_for(Want::new(Way::Lease, UpTo::items(1))).await;
        want.leases.into_first().map(|goods| self.lease(goods))
    }

    /// Takes the item that is next on lease, if there is one now.
    pub fn try_take(&self) -> Option<Lease<T>> {
        let goods = self.shared.with(Books::lend_at_once)?;
        self.note_lent(&goods);
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
    pub async fn pop(&self) -> Option<Taken<T>> {
        self.keep_time();
        consume_budget().await;
        if let Some(taken) = self.try_pop() {
            return Some(taken);
        }
        let want = self.wait_for(Want::new(Way::ForGood, UpTo::items(1))).await;
        want.items.into_first()
    }

    /// Takes the item that is next for good, if there is one now.
    #[inline]
    pub fn try_pop(&self) -> Option<Taken<T>> {
        let now = self.shared.clock.now();
        let mut taken = None;
        self.shared.exchange.with(now, |books| books.pop_at_once(&mut taken));
        if let Some(taken) = &taken {
            self.shared.waits.record(now.saturating_sub(taken.arrived()));
        }
        taken
    }

    /// Takes as [`Queue::take_many`] does, but for good.
    pub async fn pop_many(&self, up_to: impl Into<UpTo>) -> Vec<Taken<T>> {
        let want = self.wait_for_many(Way::ForGood, up_to.into()).await;
        want.map_or_else(Vec::new, |want| want.items.into_vec())
    }

    fn lease(&self, goods: Goods<T>) -> Lease<T> {
        Lease::new(Arc::clone(&self.shared), goods)
    }

    async fn wait_for(&self, want: Want<T>) -> Want<T> {
        let want = self.shared.exchange.want(|| self.shared.clock.now(), want).await;
        self.note_waits(&want);
        want
    }

    async fn wait_for_many(&self, way: Way, up_to: UpTo) -> Option<Want<T>> {
        self.keep_time();
        consume_budget().await;
        let mut want = Want::new(way, up_to);
        if self.shared.exchange.want_at_once(self.shared.clock.now(), &mut want) {
            self.note_waits(&want);
            return Some(want);
        }
        let waiting = self.wait_for(want);
        match up_to.wait {
            None => Some(waiting.await),
            Some(wait) => timeout(wait, waiting).await.ok(),
        }
    }

    fn note_waits(&self, want: &Want<T>) {
        // What was put together mostly leaves together.
        let mut same = (Duration::ZERO, 0);
        for taken in want.items.iter() {
            if taken.arrived() != same.0 {
                self.shared.waits.record_many(want.at.saturating_sub(same.0), same.1);
                same = (taken.arrived(), 0);
            }
            same.1 += 1;
        }
        self.shared.waits.record_many(want.at.saturating_sub(same.0), same.1);
        want.leases.iter().for_each(|goods| self.note_lent(goods));
    }

    /// Counts the wait of an item that goes out for the first time.
    fn note_lent(&self, goods: &Goods<T>) {
        if goods.attempt == 1 {
            self.shared.waits.record(goods.since.saturating_sub(goods.taken.arrived()));
        }
    }
}
