//! The owners of one level.
//!
//! An owner's counter grows by `cost / weight` of what it is served, and the smallest counter goes first. Who comes
//! anew or comes back starts at the floor, or where it was if that is higher: what was not asked for is not saved up,
//! and leaving gains nothing. With every service the floor rises from the counter that was served by what an even share
//! would have been if one more owner had been there. So it is below the counter of whoever was just served, which lets
//! newcomers pass a flood, and it rises all the time, so that no row of newcomers holds anybody up.

use std::cmp::Reverse;
use std::collections::binary_heap::PeekMut;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BinaryHeap};
use std::num::NonZeroU32;
use std::sync::Arc;

use crate::queue::tickets::{NumberMap, OwnerId, Place, Run, Tickets};
use crate::queue::{Ticket, TicketId};

/// So many owners are remembered of whom nothing waits and who have had more than the floor.
const DEBTORS: usize = 1024;

/// So many entries of a heap may be outdated, besides as many as are not, before it is built anew.
const OUTDATED: usize = 64;

/// Cost over weight, in units small enough that rounding never shows.
type Counter = u128;

/// Shares by owner.
pub(super) type Weights = BTreeMap<Arc<str>, NonZeroU32>;

#[derive(Debug)]
pub(super) struct Band {
    weights: Arc<Weights>,
    /// Owners of whom something waits, and debtors: owners of whom nothing waits and whose counter is higher than the
    /// floor. Each is referred to in [`Tickets::owners`].
    accounts: NumberMap<OwnerId, Account>,
    /// How the accounts of whom something waits stand, the smallest first, among entries that are no longer true. The
    /// first entry is true.
    turns: BinaryHeap<Reverse<Turn>>,
    /// The counters of debtors, the smallest first, among entries that are no longer true.
    debts: BinaryHeap<Reverse<(Counter, OwnerId)>>,
    floor: Counter,
    /// Of how many owners something waits.
    waiting: usize,
    /// The sum of their weights.
    weight: u64,
    /// When it was last served, or something began to wait.
    since: u64,
}

#[derive(Debug)]
struct Account {
    run: Run,
    /// The first of its run, if something waits.
    head: Option<(TicketId, Place)>,
    counter: Counter,
    /// The floor at which it was entered or came back: what it is given back never takes it below.
    entered: Counter,
    weight: u64,
}

/// Of equal counters, the one whose ticket came first is served.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Turn {
    counter: Counter,
    head: (TicketId, Place),
    owner: OwnerId,
}

impl Account {
    fn new(floor: Counter, weight: u64) -> Self {
        Self { run: Run::default(), head: None, counter: floor, entered: floor, weight }
    }

    fn share(&self, cost: u64) -> Counter {
        share(cost, self.weight)
    }

    fn turn(&self, owner: OwnerId) -> Option<Reverse<Turn>> {
        self.head.map(|head| Reverse(Turn { counter: self.counter, head, owner }))
    }

    /// Looks at its run anew.
    fn look(&mut self, tickets: &Tickets) {
        self.head = self.run.first(tickets).map(|place| (tickets.id(place), place));
    }
}

fn share(cost: u64, weight: u64) -> Counter {
    (Counter::from(cost) << 32) / Counter::from(weight)
}

fn weight_of(name: &str, weights: &Weights) -> u64 {
    weights.get(name).map_or(1, |weight| weight.get().into())
}

impl Band {
    pub(super) fn new(weights: Arc<Weights>) -> Self {
        Self {
            weights,
            accounts: NumberMap::default(),
            turns: BinaryHeap::new(),
            debts: BinaryHeap::new(),
            floor: 0,
            waiting: 0,
            weight: 0,
            since: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    pub(super) fn since(&self) -> u64 {
        self.since
    }

    pub(super) fn next(&self) -> Option<Place> {
        self.turns.peek().map(|Reverse(turn)| turn.head.1)
    }

    pub(super) fn join(&mut self, place: Place, tickets: &mut Tickets) {
        let owner = tickets.owner(place);
        if self.is_empty() {
            self.since = tickets.arrived(place);
        }
        let account = match self.accounts.entry(owner) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                tickets.owners().hold(owner);
                let weight = weight_of(tickets.owners().name(owner), &self.weights);
                entry.insert(Account::new(self.floor, weight))
            }
        };
        if account.head.is_none() {
            account.entered = self.floor;
            self.waiting += 1;
            self.weight += account.weight;
        }
        account.run.join(place, tickets);
        let before = account.head;
        account.look(tickets);
        if account.head != before {
            self.turns.extend(account.turn(owner));
            self.compact();
        }
    }

    pub(super) fn leave(&mut self, place: Place, tickets: &mut Tickets) {
        let owner = tickets.owner(place);
        let Some(account) = self.accounts.get_mut(&owner) else { return };
        account.run.leave(place, tickets);
        let before = account.head;
        account.look(tickets);
        if account.head != before {
            self.turns.extend(account.turn(owner));
            self.has_left(owner, tickets);
        }
    }

    /// Serves the ticket that is `next`.
    pub(super) fn serve(&mut self, place: Place, tickets: &mut Tickets, now: u64) {
        let (owner, cost) = (tickets.owner(place), tickets.cost(place).max(1));
        let Some(account) = self.accounts.get_mut(&owner) else { return };
        account.run.leave(place, tickets);
        account.look(tickets);
        let even = account.counter.max(self.floor).saturating_add(share(cost, self.weight + 1));
        account.counter = account.counter.saturating_add(account.share(cost));
        self.floor = self.floor.max(even.min(account.counter));
        self.since = now;
        if let Some(mut first) = self.turns.peek_mut() {
            match account.turn(owner) {
                Some(turn) => *first = turn,
                None => drop(PeekMut::pop(first)),
            }
        }
        self.has_left(owner, tickets);
    }

    /// Replaces what a ticket said it would cost by what it did.
    pub(super) fn charge(&mut self, ticket: &Ticket, actual: u64, tickets: &mut Tickets) {
        let (expected, actual) = (ticket.cost.max(1), actual.max(1));
        let owner = tickets.owners().find(&ticket.owner).filter(|owner| self.accounts.contains_key(owner));
        let owner = match owner {
            Some(owner) => owner,
            None if actual <= expected => return,
            None => {
                let owner = tickets.owners().refer(ticket.owner.clone());
                self.accounts
                    .insert(owner, Account::new(self.floor, weight_of(&ticket.owner, &self.weights)));
                owner
            }
        };
        let Some(account) = self.accounts.get_mut(&owner) else { return };
        let more = account.counter.saturating_add(account.share(actual.saturating_sub(expected)));
        let less = more.saturating_sub(account.share(expected.saturating_sub(actual)));
        account.counter = less.max(account.entered);
        self.turns.extend(account.turn(owner));
        if account.head.is_none() {
            self.debts.push(Reverse((account.counter, owner)));
        }
        self.compact();
        self.forget(tickets);
    }

    /// All tickets, in the order in which they would be served if nothing came.
    pub(super) fn order(&self, tickets: &Tickets) -> Vec<Place> {
        let runs = self.accounts.values().filter_map(|account| {
            let key = (account.counter, account.head?.0);
            Some((key, (account, account.run.iter(tickets).peekable())))
        });
        let mut waiting: BTreeMap<_, _> = runs.collect();
        let mut order = Vec::new();
        while let Some(((counter, _), (account, mut run))) = waiting.pop_first() {
            let Some(place) = run.next() else { continue };
            order.push(place);
            if let Some(next) = run.peek().copied() {
                let counter = counter.saturating_add(account.share(tickets.cost(place).max(1)));
                waiting.insert((counter, tickets.id(next)), (account, run));
            }
        }
        order
    }

    /// Goes on with other weights; what owners have had stays as it was counted.
    pub(super) fn reweigh(&mut self, weights: &Arc<Weights>, tickets: &mut Tickets) {
        (self.weights, self.weight) = (weights.clone(), 0);
        for (owner, account) in &mut self.accounts {
            account.weight = weight_of(tickets.owners().name(*owner), weights);
            self.weight += account.head.map_or(0, |_| account.weight);
        }
    }

    /// Forgets everybody; nothing waits.
    pub(super) fn retire(&mut self, tickets: &mut Tickets) {
        self.accounts.drain().for_each(|(owner, _)| tickets.owners().release(owner));
    }

    /// A ticket of an owner, which was its first, has gone.
    fn has_left(&mut self, owner: OwnerId, tickets: &mut Tickets) {
        if let Some(account) = self.accounts.get(&owner)
            && account.head.is_none()
        {
            self.waiting -= 1;
            self.weight -= account.weight;
            self.debts.push(Reverse((account.counter, owner)));
        }
        self.compact();
        self.forget(tickets);
    }

    /// Lets the first entry be true, and most others.
    fn compact(&mut self) {
        let is_true = |turn: &Turn| {
            let account = self.accounts.get(&turn.owner);
            account.is_some_and(|account| account.counter == turn.counter && account.head == Some(turn.head))
        };
        while self.turns.peek().is_some_and(|Reverse(turn)| !is_true(turn)) {
            self.turns.pop();
        }
        if self.turns.len() > 2 * self.waiting + OUTDATED {
            let turns = self.accounts.iter().filter_map(|(owner, account)| account.turn(*owner));
            self.turns = turns.collect();
        }
        if self.debts.len() > 2 * self.debtors() + OUTDATED {
            let debtors = self.accounts.iter().filter(|(_, account)| account.head.is_none());
            self.debts = debtors.map(|(owner, account)| Reverse((account.counter, *owner))).collect();
        }
    }

    fn debtors(&self) -> usize {
        self.accounts.len() - self.waiting
    }

    /// Forgets owners of whom nothing waits and who would start at the floor anyway. Of too many others, those go who
    /// are closest to the floor, and the floor rises to them, so that they gain nothing.
    fn forget(&mut self, tickets: &mut Tickets) {
        while let Some(Reverse((counter, owner))) = self.debts.peek().copied() {
            let is_true = |account: &Account| account.head.is_none() && account.counter == counter;
            if self.accounts.get(&owner).is_some_and(is_true) {
                if counter > self.floor && self.debtors() <= DEBTORS {
                    return;
                }
                self.floor = self.floor.max(counter);
                self.accounts.remove(&owner);
                tickets.owners().release(owner);
            }
            self.debts.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn who_never_comes_back_is_forgotten() {
        let (mut tickets, mut band) = (Tickets::default(), Band::new(Arc::default()));
        for number in 0..10_000 {
            let ticket = Ticket::of(format!("owner {number}"));
            let place = tickets.enter(TicketId(number), ticket.clone(), Duration::ZERO);
            band.join(place, &mut tickets);
            band.serve(place, &mut tickets, 0);
            tickets.exit(place);
            band.charge(&ticket, number % 5000, &mut tickets);
            assert!(band.is_empty() && band.accounts.len() <= DEBTORS);
            assert!(band.debts.len() <= 2 * DEBTORS + OUTDATED && band.turns.len() <= OUTDATED);
        }
        assert!(!band.accounts.is_empty(), "nobody owes anything");
        band.retire(&mut tickets);
        assert!(band.accounts.is_empty());
    }
}
