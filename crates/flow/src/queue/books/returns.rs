//! How items come back: acknowledged, given back, run out, put off, expired, given up, and brought back to life.

use std::time::Duration;

use crate::queue::dead_letters::{Cause, DeadLetter};
use crate::queue::gone::Why;
use crate::queue::lease::LeaseError;
use crate::queue::leases::Out;
use crate::queue::moment::Moment;
use crate::queue::past::{Attempt, Ending};
use crate::queue::settings::Expiry;
use crate::queue::store::{Entry, Position};
use crate::queue::{Drained, Taken, Ticket, TicketId};

use super::{Books, Goods};

/// What remains to be done about an acknowledgement.
pub(in crate::queue) struct Acknowledged<T> {
    /// Where the store notes it, which is to be waited for.
    pub(in crate::queue) position: Option<Position>,
    _copy: Option<Out<T>>,
}

impl<T> Books<T> {
    /// Everything that was due by now.
    pub(super) fn let_happen_what_is_due(&mut self) {
        while let Some(out) = self.leases.pop_due(self.now.time()) {
            self.run_out(out, Ending::RanOut);
        }
        while let Some(first) = self.put_off.first_entry()
            && first.key().0 <= self.now.time()
        {
            let taken = first.remove();
            self.outside.subtract(taken.load());
            self.put_back(taken);
        }
        for taken in self.line.expire(self.now.time()) {
            self.tally.expired += 1;
            match self.settings.expiry {
                Expiry::Drop => self.let_go(taken, Why::Expired),
                Expiry::DeadLetter => self.give_up(taken, Cause::Expired),
            }
        }
        let line = self.line.next_deadline().unwrap_or(Duration::MAX);
        let put_off = self.put_off.first_key_value().map_or(Duration::MAX, |((due, _), _)| *due);
        self.due = Moment::of(self.leases.due().min(line).min(put_off));
    }

    /// Lets a lease run out at another time; `false` if it has ended.
    pub(in crate::queue) fn extend(&mut self, goods: &Goods<T>, by: Duration) -> bool {
        let due = self.now.time().saturating_add(by);
        let is_held = goods.lease.is_none_or(|lease| self.leases.extend(lease, due));
        self.expect(self.leases.due());
        is_held
    }

    /// Ends a lease because its item is done. Nothing is changed if the lease has ended or the store does not take the
    /// note; if it takes it, [`Books::finish`] or [`Books::unacknowledge`] must follow when that is settled.
    pub(in crate::queue) fn acknowledge(&mut self, goods: &Goods<T>) -> Result<Acknowledged<T>, LeaseError> {
        if !self.is_held(goods) {
            return Err(goods.ended());
        }
        let entry = Entry::Done { id: goods.taken.id };
        let position = self.journal.as_mut().map(|journal| journal.note(entry)).transpose()?;
        self.service.record(self.now.time().saturating_sub(goods.since));
        if let Some(cost) = goods.charged {
            self.line.charge(&goods.taken.ticket(), cost);
        }
        let _copy = self.end(goods);
        if position.is_none() {
            self.finish(goods);
        }
        Ok(Acknowledged { position, _copy })
    }

    /// An acknowledgement is settled.
    pub(in crate::queue) fn finish(&mut self, goods: &Goods<T>) {
        self.forget_past(goods.taken.id);
        self.in_flight -= 1;
        self.tally.done += 1;
    }

    /// An acknowledgement did not reach the disk: the item is there still.
    pub(in crate::queue) fn unacknowledge(&mut self, goods: Goods<T>) {
        self.come_back(goods, Ending::Returned);
    }

    /// Gives an item back, if its lease has not ended; else the goods stay where they are. What was kept of the item is
    /// to be dropped outside of the lock.
    pub(in crate::queue) fn give_back(
        &mut self,
        goods: &mut Option<Goods<T>>,
        ending: Ending,
    ) -> Option<Out<T>> {
        let held = goods.take_if(|goods| self.is_held(goods))?;
        let copy = self.end(&held);
        self.come_back(held, ending);
        copy
    }

    /// Gives an item up, as [`Books::give_back`] gives it back.
    pub(in crate::queue) fn condemn(&mut self, goods: &mut Option<Goods<T>>, cause: Cause) -> Option<Out<T>> {
        let held = goods.take_if(|goods| self.is_held(goods))?;
        let copy = self.end(&held);
        self.in_flight -= 1;
        self.end_attempt(held.taken.id, held.attempt, held.since, Ending::Condemned);
        self.give_up(held.taken, cause);
        copy
    }

    /// A verdict did not reach the disk: the item is in the line there, and so it is here.
    pub(in crate::queue) fn uncondemn(&mut self, id: TicketId) {
        if let Some(letter) = self.dead.letters.remove(&id) {
            self.journal.iter_mut().for_each(|journal| journal.take_back(id));
            self.tally.dead -= 1;
            self.admit(letter.revive());
        }
    }

    /// Calls all items back that are out on leases which run out.
    fn recall(&mut self) {
        for out in self.leases.recall() {
            self.run_out(out, Ending::Recalled);
        }
    }

    /// Empties a closed queue that nobody serves any more; what the store remembers stays there.
    pub(in crate::queue) fn clear(&mut self) -> Drained<T> {
        self.recall();
        for taken in std::mem::take(&mut self.put_off).into_values() {
            self.outside.subtract(taken.load());
            self.put_back(taken);
        }
        self.pasts.clear();
        Drained { left: self.line.drain(), out: self.in_flight }
    }

    /// Brings dead letters back into the line. They keep their arrival, and a deadline that has passed is lifted.
    pub(in crate::queue) fn revive(&mut self, mut letter: DeadLetter<T>) {
        self.mention(Entry::Revived { id: letter.id() });
        self.tally.revived += 1;
        letter.ticket.deadline = letter.ticket.deadline.filter(|deadline| *deadline > self.now.time());
        self.admit(letter.revive());
    }

    /// Throws a dead letter away.
    pub(in crate::queue) fn purge(&mut self, letter: &DeadLetter<T>) {
        self.mention(Entry::Done { id: letter.id() });
    }

    /// Puts an item among the dead letters that the store has there already.
    pub(in crate::queue) fn bury(&mut self, taken: Taken<T>, cause: Cause) {
        self.tally.dead += 1;
        let past = self.pasts.remove(&taken.id).unwrap_or_default();
        let letter = DeadLetter::new(taken, past, cause, self.now.time());
        if let Some(oldest) = self.dead.bury(letter) {
            self.tally.forgotten += 1;
            self.let_go(oldest.revive(), Why::DeadLetters);
        }
    }

    /// Puts an item into the line under the name that it has.
    #[inline]
    pub(in crate::queue) fn admit(&mut self, taken: Taken<T>) {
        taken.deadline().into_iter().for_each(|deadline| self.expect(deadline));
        self.line.admit_again(taken);
    }

    #[inline(always)]
    pub(super) fn stow(&mut self, id: TicketId, arrived: Moment, ticket: &mut Ticket, item: T) {
        ticket.deadline.into_iter().for_each(|deadline| self.expect(deadline));
        self.line.admit(id, arrived, ticket, item);
    }

    /// Puts an item into the line that was taken from it.
    fn put_back(&mut self, taken: Taken<T>) {
        taken.deadline().into_iter().for_each(|deadline| self.expect(deadline));
        self.line.put_back(taken);
    }

    pub(in crate::queue) fn give_up(&mut self, taken: Taken<T>, cause: Cause) {
        self.mention(Entry::Dead { id: taken.id, cause: cause.as_str() });
        self.bury(taken, cause);
    }

    /// Whether whoever holds these goods still has a say.
    fn is_held(&self, goods: &Goods<T>) -> bool {
        goods.lease.is_none_or(|lease| self.leases.is_running(lease))
    }

    /// The end of a lease that runs, by its holder. What was kept of the item is to be dropped outside of the lock.
    fn end(&mut self, goods: &Goods<T>) -> Option<Out<T>> {
        goods.lease.and_then(|lease| self.leases.end(lease))
    }

    /// The end of a lease that was not ended by its holder.
    fn run_out(&mut self, out: Out<T>, ending: Ending) {
        self.in_flight -= 1;
        self.tally.ran_out += 1;
        self.end_attempt(out.taken.id, out.attempt, out.since, ending);
        self.settle_attempt(out.taken, out.attempt, Duration::ZERO);
    }

    fn come_back(&mut self, goods: Goods<T>, ending: Ending) {
        self.in_flight -= 1;
        self.end_attempt(goods.taken.id, goods.attempt, goods.since, ending);
        let after = if let Ending::Nacked(after) = ending { after } else { Duration::ZERO };
        self.settle_attempt(goods.taken, goods.attempt, after);
    }

    fn end_attempt(&mut self, id: TicketId, number: u32, began: Duration, end: Ending) {
        let lasted = self.now.time().saturating_sub(began);
        self.pasts.entry(id).or_default().remember(Attempt { number, began, lasted, end });
    }

    /// Where an item goes that came back: among the dead letters, or into the line, at once or after a time.
    fn settle_attempt(&mut self, taken: Taken<T>, attempts: u32, after: Duration) {
        if self.settings.max_attempts.is_some_and(|most| attempts >= most.get()) {
            self.give_up(taken, Cause::Attempts);
            return;
        }
        self.tally.returned += 1;
        if after.is_zero() {
            self.put_back(taken);
        } else {
            let due = self.now.time().saturating_add(after);
            self.outside.add(taken.load());
            self.put_off.insert((due, taken.id), taken);
            self.expect(due);
        }
    }
}
