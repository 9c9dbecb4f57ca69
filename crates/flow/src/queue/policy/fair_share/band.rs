//! The owners of one level.
//!
//! An owner's counter grows by `cost / weight` of what it is served, and the smallest counter goes first. Who comes
//! anew or comes back starts at the floor, or where it was if that is higher: what was not asked for is not saved up,
//! and leaving gains nothing. With every service the floor rises from the counter that was served by what an even share
//! would have been if one more owner had been there. So it is below the counter of whoever was just served, which lets
//! newcomers pass a flood, and it rises all the time, so that no row of newcomers holds anybody up.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::accounts::{Accounts, Counter, share};
use super::turns::{Turn, Turns};
use crate::queue::lanes::LaneId;
use crate::queue::policy::Served;
use crate::queue::{Ticket, TicketId};

/// So many owners are remembered of whom nothing waits and who have had more than the floor.
const DEBTORS: usize = 1024;

/// So many are remembered although they would start at the floor, because most of them come back.
const REMEMBERED: usize = 64;

/// So many entries of a heap may be outdated, besides as many as are not, before it is built anew.
const OUTDATED: usize = 64;

#[derive(Debug)]
pub(super) struct Band {
    level: u8,
    /// How the accounts of whom something waits stand, the smallest first, among entries that are no longer true. The
    /// first entry is true.
    turns: Turns,
    /// The counters of those of whom nothing waits, the smallest first, among entries that are no longer true.
    debts: BinaryHeap<Reverse<(Counter, LaneId)>>,
    floor: Counter,
    /// How many accounts there are.
    known: usize,
    /// Of how many owners something waits.
    waiting: usize,
    /// The sum of their weights.
    weight: u64,
    /// When it was last served, or something began to wait.
    since: u64,
}

impl Turn {
    #[inline]
    fn is_true(&self, accounts: &Accounts) -> bool {
        let account = accounts.get(self.lane);
        account.is_some_and(|account| account.counter == self.counter && account.head == Some(self.head))
    }
}

impl Band {
    pub(super) fn new(level: u8) -> Self {
        Self {
            level,
            turns: Turns::default(),
            debts: BinaryHeap::new(),
            floor: 0,
            known: 0,
            waiting: 0,
            weight: 0,
            since: 0,
        }
    }

    #[inline]
    pub(super) fn level(&self) -> u8 {
        self.level
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    pub(super) fn since(&self) -> u64 {
        self.since
    }

    pub(super) fn next(&self) -> Option<LaneId> {
        self.turns.first().map(|turn| turn.lane)
    }

    /// One account more; the answer is where it begins.
    pub(super) fn enter(&mut self) -> Counter {
        self.known += 1;
        self.floor
    }

    /// An item has come into a lane.
    #[inline]
    pub(super) fn joined(&mut self, lane: LaneId, id: TicketId, arrived: u64, accounts: &mut Accounts) {
        if self.is_empty() {
            self.since = arrived;
        }
        let account = accounts.of_mut(lane);
        if account.head.is_some_and(|head| head < id) {
            return;
        }
        if account.head.is_none() {
            account.come_back(self.floor);
            self.waiting += 1;
            self.weight += account.weight;
        }
        account.head = Some(id);
        self.enter_turn(lane, accounts);
        self.compact(accounts);
    }

    /// Something has gone from a lane, whose first now is `head`.
    pub(super) fn left(&mut self, lane: LaneId, head: Option<TicketId>, accounts: &mut Accounts) {
        let account = accounts.of_mut(lane);
        if account.head != head {
            account.head = head;
            self.enter_turn(lane, accounts);
            self.has_left(lane, accounts);
            self.forget(accounts);
        }
    }

    /// The first of the lane that was next has been served.
    pub(super) fn served(&mut self, served: &Served, head: Option<TicketId>, accounts: &mut Accounts) {
        let account = accounts.of_mut(served.lane);
        account.head = head;
        let even = account.counter.max(self.floor).saturating_add(share(served.cost, self.weight + 1));
        account.counter = account.counter.saturating_add(account.share(served.cost));
        self.floor = self.floor.max(even.min(account.counter));
        self.since = served.now;
        self.turns.pop();
        match account.turn(served.lane) {
            Some(turn) => {
                self.turns.push(turn);
                self.let_first_be_true(accounts);
            }
            None => self.has_left(served.lane, accounts),
        }
        // The floor has risen, perhaps to that of a debtor.
        self.forget(accounts);
    }

    /// Replaces what a ticket said it would cost by what it did.
    pub(super) fn charge(&mut self, ticket: &Ticket, actual: u64, accounts: &mut Accounts) {
        let (expected, actual) = (ticket.cost.max(1), actual.max(1));
        let lane = match accounts.find(ticket) {
            Some(lane) => lane,
            None if actual <= expected => return,
            None => accounts.open(ticket.level, &ticket.owner, self),
        };
        let account = accounts.of_mut(lane);
        if account.head.is_none() {
            account.counter = account.counter.max(self.floor);
        }
        let (more, less) = (actual.saturating_sub(expected), expected.saturating_sub(actual));
        let share = |cost| if cost == 0 { 0 } else { account.share(cost) };
        let counter = account.counter.saturating_add(share(more)).saturating_sub(share(less));
        account.counter = counter.max(account.entered);
        if account.head.is_none() {
            self.debts.push(Reverse((account.counter, lane)));
        }
        self.enter_turn(lane, accounts);
        self.compact(accounts);
        self.forget(accounts);
    }

    /// Counts the weights anew.
    pub(super) fn reweigh(&mut self, accounts: &Accounts) {
        let waiting = accounts.of_level(self.level).filter(|(_, account)| account.head.is_some());
        self.weight = waiting.map(|(_, account)| account.weight).sum();
    }

    /// What was the first of a lane has gone.
    fn has_left(&mut self, lane: LaneId, accounts: &mut Accounts) {
        let account = accounts.of(lane);
        if account.head.is_none() {
            self.waiting -= 1;
            self.weight -= account.weight;
            self.debts.push(Reverse((account.counter, lane)));
        }
        self.compact(accounts);
    }

    /// How the account of a lane stands now, if something waits.
    #[inline]
    fn enter_turn(&mut self, lane: LaneId, accounts: &Accounts) {
        accounts.of(lane).turn(lane).into_iter().for_each(|turn| self.turns.push(turn));
    }

    #[inline]
    fn let_first_be_true(&mut self, accounts: &Accounts) {
        while self.turns.first().is_some_and(|turn| !turn.is_true(accounts)) {
            self.turns.pop();
        }
    }

    /// Lets the first entry be true, and most others.
    fn compact(&mut self, accounts: &Accounts) {
        self.let_first_be_true(accounts);
        if self.turns.len() > 2 * self.waiting + OUTDATED {
            let turns = accounts.of_level(self.level).filter_map(|(lane, account)| account.turn(lane));
            self.turns.rebuild(turns);
        }
        if self.debts.len() > 2 * self.debtors() + OUTDATED {
            let debtors = accounts.of_level(self.level).filter(|(_, account)| account.head.is_none());
            self.debts = debtors.map(|(lane, account)| Reverse((account.counter, lane))).collect();
        }
    }

    fn debtors(&self) -> usize {
        self.known - self.waiting
    }

    /// Forgets owners of whom nothing waits where there are too many of them: first those who would start at the floor
    /// anyway, then those who are closest to it, and the floor rises to them, so that they gain nothing.
    fn forget(&mut self, accounts: &mut Accounts) {
        while let Some(Reverse((counter, lane))) = self.debts.peek().copied() {
            let account = accounts.get(lane).filter(|account| account.level == self.level);
            if account.is_some_and(|account| account.head.is_none() && account.counter == counter) {
                if self.debtors() <= if counter > self.floor { DEBTORS } else { REMEMBERED } {
                    return;
                }
                self.floor = self.floor.max(counter);
                self.known -= 1;
                accounts.close(lane);
            }
            self.debts.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn who_never_comes_back_is_forgotten() {
        let (mut accounts, mut band) = (Accounts::new(Arc::default()), Band::new(0));
        for number in 0..10_000 {
            let ticket = Ticket::of(format!("owner {number}"));
            let lane = accounts.open(0, &ticket.owner, &mut band);
            band.joined(lane, TicketId(number), 0, &mut accounts);
            assert_eq!(band.next(), Some(lane));
            band.served(&Served { lane, cost: 1, now: 0 }, None, &mut accounts);
            band.charge(&ticket, number % 5000, &mut accounts);
            assert!(band.is_empty() && accounts.len() <= DEBTORS && band.known == accounts.len());
            assert!(band.debts.len() <= 2 * DEBTORS + OUTDATED && band.turns.len() <= OUTDATED);
        }
        assert!(accounts.len() > 0, "nobody owes anything");
    }
}
