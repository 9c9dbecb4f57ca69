//! The owners of one level.
//!
//! An owner's counter grows by `cost / weight` of what it is served, and the smallest counter goes first. Who comes
//! anew or comes back starts at the floor, or where it was if that is higher: what was not asked for is not saved up,
//! and leaving gains nothing. The floor is the counter that was served last, plus what an even share of the service
//! would have been if one more owner had been there. So it is below the counter of whoever was served, which lets
//! newcomers pass a flood, and it rises with everything that is served, so that no row of newcomers holds anybody up.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::sync::Arc;

use crate::queue::tickets::{NumberMap, OwnerId, Place, Run, Tickets};
use crate::queue::{Ticket, TicketId};

/// So many absent owners are remembered because they have had more than the floor.
const DEBTORS: usize = 1024;

/// Cost over weight, in units small enough that rounding never shows.
type Counter = u128;

/// Shares by owner.
pub(super) type Weights = BTreeMap<Arc<str>, NonZeroU32>;

fn share(cost: u64, weight: u64) -> Counter {
    (Counter::from(cost) << 32) / Counter::from(weight)
}

#[derive(Debug, Default)]
pub(super) struct Band {
    /// Owners of whom something waits, and debtors. Each is referred to in [`Tickets::owners`].
    accounts: NumberMap<OwnerId, Account>,
    /// Owners of whom something waits, by their counter; of equal ones, whose ticket came first.
    waiting: BTreeMap<(Counter, TicketId), (OwnerId, Place)>,
    /// Owners of whom nothing waits, whose counter is higher than the floor.
    debtors: BTreeSet<(Counter, OwnerId)>,
    floor: Counter,
    /// Sum of the weights of those of whom something waits.
    weight: u64,
    /// When it was last served, or something began to wait.
    since: u64,
}

#[derive(Debug)]
struct Account {
    run: Run,
    counter: Counter,
    /// The counter with which it began to wait or was entered: what it is given back never takes it below.
    entered: Counter,
    weight: u32,
    /// The first of its run, under which it stands in `waiting`.
    head: Option<(TicketId, Place)>,
}

impl Band {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn since(&self) -> u64 {
        self.since
    }

    pub(super) fn next(&self) -> Option<Place> {
        self.waiting.first_key_value().map(|(_, (_, place))| *place)
    }

    pub(super) fn join(&mut self, place: Place, tickets: &mut Tickets, weights: &Weights) {
        let owner = tickets.owner(place);
        if self.is_empty() {
            self.since = tickets.arrived(place);
        }
        if !self.accounts.contains_key(&owner) {
            tickets.owners().hold(owner);
            self.open(owner, tickets, weights);
        }
        let Some(account) = self.accounts.get_mut(&owner) else { return };
        if account.head.is_none() {
            self.debtors.remove(&(account.counter, owner));
            account.entered = self.floor;
            self.weight += u64::from(account.weight);
        }
        account.run.join(place, tickets);
        self.place(owner, tickets);
    }

    pub(super) fn leave(&mut self, place: Place, tickets: &mut Tickets) {
        let owner = tickets.owner(place);
        let Some(account) = self.accounts.get_mut(&owner) else { return };
        account.run.leave(place, tickets);
        self.place(owner, tickets);
        self.forget(tickets);
    }

    pub(super) fn serve(&mut self, place: Place, tickets: &mut Tickets, now: u64) {
        let (owner, cost) = (tickets.owner(place), tickets.cost(place).max(1));
        let Some(account) = self.accounts.get_mut(&owner) else { return };
        let before = account.counter;
        let after = before.saturating_add(share(cost, u64::from(account.weight)));
        account.run.leave(place, tickets);
        let even = before.max(self.floor).saturating_add(share(cost, self.weight + 1));
        self.recount(owner, after, tickets);
        let highest = self.waiting.last_key_value().map_or(after, |((counter, _), _)| after.max(*counter));
        self.floor = self.floor.max(even.min(highest));
        self.since = now;
        self.forget(tickets);
    }

    /// Replaces what a ticket said it would cost by what it did.
    pub(super) fn charge(&mut self, ticket: &Ticket, actual: u64, tickets: &mut Tickets, weights: &Weights) {
        let (expected, actual) = (ticket.cost.max(1), actual.max(1));
        let owner = tickets.owners().find(&ticket.owner).filter(|owner| self.accounts.contains_key(owner));
        let owner = match owner {
            Some(owner) => owner,
            None if actual <= expected => return,
            None => {
                let owner = tickets.owners().refer(ticket.owner.clone());
                self.open(owner, tickets, weights);
                owner
            }
        };
        let Some(account) = self.accounts.get(&owner) else { return };
        let weight = u64::from(account.weight);
        let more = account.counter.saturating_add(share(actual.saturating_sub(expected), weight));
        let counter = more.saturating_sub(share(expected.saturating_sub(actual), weight));
        let counter = counter.max(account.entered);
        self.recount(owner, counter, tickets);
        self.forget(tickets);
    }

    /// All tickets, in the order in which they would be served if nothing came.
    pub(super) fn order(&self, tickets: &Tickets) -> Vec<Place> {
        let runs = self.waiting.iter().filter_map(|((counter, id), (owner, _))| {
            let account = self.accounts.get(owner)?;
            Some(((*counter, *id), (account.weight, account.run.iter(tickets).peekable())))
        });
        let mut waiting: BTreeMap<_, _> = runs.collect();
        let mut order = Vec::new();
        while let Some(((counter, _), (weight, mut run))) = waiting.pop_first() {
            let Some(place) = run.next() else { continue };
            order.push(place);
            if let Some(next) = run.peek().copied() {
                let counter = counter.saturating_add(share(tickets.cost(place).max(1), u64::from(weight)));
                waiting.insert((counter, tickets.id(next)), (weight, run));
            }
        }
        order
    }

    pub(super) fn reweigh(&mut self, tickets: &mut Tickets, weights: &Weights) {
        self.weight = 0;
        for (owner, account) in &mut self.accounts {
            account.weight = weight_of(tickets.owners().name(*owner), weights);
            self.weight += account.head.map_or(0, |_| u64::from(account.weight));
        }
    }

    /// Forgets everybody; nothing waits.
    pub(super) fn retire(&mut self, tickets: &mut Tickets) {
        self.accounts.keys().for_each(|owner| tickets.owners().release(*owner));
        *self = Self::default();
    }

    /// Enters an owner that is referred to and has no account.
    fn open(&mut self, owner: OwnerId, tickets: &mut Tickets, weights: &Weights) {
        let weight = weight_of(tickets.owners().name(owner), weights);
        let account =
            Account { run: Run::default(), counter: self.floor, entered: self.floor, weight, head: None };
        self.accounts.insert(owner, account);
    }

    /// Lets an owner stand where its run says, after that has changed.
    fn place(&mut self, owner: OwnerId, tickets: &Tickets) {
        if let Some(account) = self.accounts.get(&owner) {
            self.recount(owner, account.counter, tickets);
        }
    }

    /// Lets an owner stand where its run and a new counter say.
    fn recount(&mut self, owner: OwnerId, counter: Counter, tickets: &Tickets) {
        let Some(account) = self.accounts.get_mut(&owner) else { return };
        let head = account.run.first(tickets).map(|place| (tickets.id(place), place));
        if (counter, head) == (account.counter, account.head) {
            return;
        }
        match account.head {
            Some((id, _)) => drop(self.waiting.remove(&(account.counter, id))),
            None => drop(self.debtors.remove(&(account.counter, owner))),
        }
        match head {
            Some((id, place)) => drop(self.waiting.insert((counter, id), (owner, place))),
            None => drop(self.debtors.insert((counter, owner))),
        }
        if head.is_none() && account.head.is_some() {
            self.weight -= u64::from(account.weight);
        }
        (account.counter, account.head) = (counter, head);
    }

    /// Forgets owners of whom nothing waits and who would start at the floor anyway. Of too many others, those go who
    /// are closest to the floor, and the floor rises to them, so that they gain nothing.
    fn forget(&mut self, tickets: &mut Tickets) {
        while let Some((counter, owner)) = self.debtors.first().copied()
            && (counter <= self.floor || self.debtors.len() > DEBTORS)
        {
            self.floor = self.floor.max(counter);
            self.debtors.pop_first();
            self.accounts.remove(&owner);
            tickets.owners().release(owner);
        }
    }
}

fn weight_of(name: &str, weights: &Weights) -> u32 {
    weights.get(name).map_or(1, |weight| weight.get())
}
