//! How items go out: for good or on lease, one by one or together.

use super::{Books, Goods, Want, Way};
use crate::queue::gone::{Gone, Why};
use crate::queue::lanes::Run;
use crate::queue::policy::Discipline;
use crate::queue::store::Entry;
use crate::queue::{Taken, TicketId};

impl<T> Books<T> {
    /// Hands out what there is, up to what is asked for; whether that is all the taker will get.
    pub(super) fn hand_out(&mut self, want: &mut Want<T>) -> bool {
        let is_bounded = want.cost < u64::MAX;
        if want.way == Way::ForGood && want.most > 1 && !is_bounded && self.overload.is_none() {
            self.pop_many_at_once(want);
            return self.is_all(want);
        }
        want.reserve(self.line.len());
        while want.len() < want.most {
            if is_bounded && want.len() > 0 && self.next_cost().is_none_or(|cost| cost > want.cost) {
                break;
            }
            let Some(taken) = self.take_next() else { break };
            if is_bounded {
                want.cost = want.cost.saturating_sub(taken.load().cost);
            }
            match want.way {
                Way::Lease => {
                    let goods = self.lend(taken);
                    want.leases.push(goods);
                }
                Way::ForGood => {
                    self.note_wait(taken.arrived);
                    self.give_away(taken.id);
                    want.items.push(taken);
                }
            }
        }
        self.is_all(want)
    }

    /// Takes the next item that is not too late.
    #[inline]
    fn take_next(&mut self) -> Option<Taken<T>> {
        if self.overload.is_some() {
            return self.take_next_in_time();
        }
        let taken = self.line.take_at(self.now)?;
        self.flow.left += 1;
        Some(taken)
    }

    /// Takes the next item that has not waited too long either.
    fn take_next_in_time(&mut self) -> Option<Taken<T>> {
        loop {
            let taken = self.line.take_at(self.now)?;
            self.flow.left += 1;
            let Some(overload) = &mut self.overload else { return Some(taken) };
            let waited = self.now.time().saturating_sub(taken.arrived());
            let is_back = self.pasts.contains_key(&taken.id);
            if is_back || !overload.lets_go(waited, self.service.median(), self.now.time()) {
                return Some(if overload.prefers_newest() { self.newest_instead_of(taken) } else { taken });
            }
            self.tally.shed += 1;
            self.let_go(taken, Why::Overload);
        }
    }

    /// Under the policy that goes by arrival alone, takes the item that came last, and puts the one back whose turn it
    /// was: it keeps its place, and is let go there if the overload outlasts it.
    fn newest_instead_of(&mut self, oldest: Taken<T>) -> Taken<T> {
        if self.line.policy().discipline != Discipline::FIFO {
            return oldest;
        }
        let newest = self.line.newest().and_then(|id| self.line.pull(id));
        match newest {
            Some(newest) => {
                self.line.put_back(oldest);
                newest
            }
            None => oldest,
        }
    }

    /// Takes the next item for good.
    #[inline]
    pub(in crate::queue) fn pop_at_once(&mut self, place: &mut Option<Taken<T>>) {
        if self.overload.is_some() {
            *place = self.take_next_in_time();
            if let Some(taken) = place {
                self.note_wait(taken.arrived);
                self.give_away(taken.id);
            }
        } else if let Some(slot) = self.line.serve(self.now) {
            self.flow.left += 1;
            self.note_wait(slot.arrived);
            self.give_away(slot.id);
            *place = Some(self.line.unpack(slot));
        }
    }

    /// Takes items for good, as many as are wanted and there are.
    fn pop_many_at_once(&mut self, want: &mut Want<T>) {
        self.pop_run_at_once(want);
        let mut most = want.most - want.len();
        while most > 0
            && let Some(slot) = self.line.serve(self.now)
        {
            self.note_wait(slot.arrived);
            self.give_away(slot.id);
            self.flow.left += 1;
            most -= 1;
            want.items.push(self.line.unpack(slot));
        }
    }

    /// Takes the plain items for good that are next, if nothing is to be done about each.
    fn pop_run_at_once(&mut self, want: &mut Want<T>) {
        if !self.pasts.is_empty() || self.journal.is_some() {
            return;
        }
        let (now, waits) = (self.now.nanos(), &mut self.waits);
        let mut tell = |arrived, count| waits.record_nanos(now.saturating_sub(arrived), count);
        let run = Run::new(want.most, (&mut want.batches, self.line.supply), &mut tell);
        let count = self.line.take_run(self.now, run).items as u64;
        self.tally.taken += count;
        self.tally.done += count;
        self.flow.left += count;
    }

    #[inline]
    fn note_wait(&mut self, arrived: u64) {
        self.waits.record_nanos(self.now.nanos().saturating_sub(arrived), 1);
    }

    /// Whether a taker gets no more than it has.
    fn is_all(&self, want: &Want<T>) -> bool {
        want.len() > 0 || (self.line.is_closed() && self.is_at_rest())
    }

    /// Takes the next item on lease.
    #[inline]
    pub(in crate::queue) fn lend_at_once(&mut self) -> Option<Goods<T>> {
        let taken = self.take_next()?;
        Some(self.lend(taken))
    }

    /// The end of an item's stay.
    #[inline]
    pub(super) fn forget_past(&mut self, id: TicketId) {
        if !self.pasts.is_empty() {
            self.pasts.remove(&id);
        }
    }

    /// The cost of the item that is next.
    fn next_cost(&mut self) -> Option<u64> {
        self.line.next_cost(self.now)
    }

    /// An item is gone because its taker took it for good.
    fn give_away(&mut self, id: TicketId) {
        self.tally.taken += 1;
        self.tally.done += 1;
        self.forget_past(id);
        self.mention(Entry::Done { id });
    }

    /// Lets an item go out on lease.
    fn lend(&mut self, taken: Taken<T>) -> Goods<T> {
        self.tally.taken += 1;
        self.in_flight += 1;
        let past = if self.pasts.is_empty() { None } else { self.pasts.get(&taken.id) };
        let (attempts, history) = past.map_or((0, Vec::new()), |past| (past.attempts, past.history.clone()));
        let attempt = attempts + 1;
        if attempt == 1 {
            self.note_wait(taken.arrived);
        }
        self.mention(Entry::Taken { id: taken.id, attempt });
        let lease = self.settings.visibility.as_ref().map(|visibility| {
            let copy = taken.copied(visibility.copy);
            self.leases.grant(copy, attempt, self.now.time(), self.now.time().saturating_add(visibility.time))
        });
        self.expect(self.leases.due());
        Goods { taken, since: self.now.time(), attempt, history, lease, charged: None }
    }

    /// Lets an item go that nobody took.
    pub(super) fn let_go(&mut self, taken: Taken<T>, why: Why) {
        self.forget_past(taken.id);
        self.mention(Entry::Done { id: taken.id });
        self.gone.push(Gone::new(taken, why));
    }

    pub(super) fn mention(&mut self, entry: Entry<'_>) {
        if let Some(journal) = &mut self.journal {
            journal.mention(entry);
        }
    }
}
