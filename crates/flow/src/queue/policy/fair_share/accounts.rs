//! What each owner has had of each level.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;

use slab::Slab;

use super::band::Band;
use super::turns::Turn;
use crate::queue::lanes::{LaneId, Lanes};
use crate::queue::owners::{NumberMap, OwnerId, Owners};
use crate::queue::{Owner, Ticket, TicketId};

/// Cost over weight, in units small enough that rounding never shows.
pub(super) type Counter = u128;

/// Shares by owner.
type Weights = BTreeMap<Arc<str>, NonZeroU32>;

/// The accounts of those of whom something waits, and of some of whom nothing does: of debtors, whose counter is higher
/// than the floor of their level, and of a few others.
#[derive(Debug)]
pub(super) struct Accounts {
    /// Each is held by its accounts.
    owners: Owners,
    weights: Arc<Weights>,
    /// By lane: the number of an account is that of its lane.
    all: Slab<Account>,
    /// By level and owner.
    lanes: NumberMap<u64, LaneId>,
    /// By owner, the account that was opened last: mostly the one that is opened next.
    last: Vec<LaneId>,
}

#[derive(Debug)]
pub(super) struct Account {
    pub(super) level: u8,
    owner: OwnerId,
    /// The first of its lane, if something waits.
    pub(super) head: Option<TicketId>,
    pub(super) counter: Counter,
    /// The floor at which it was entered or came back: what it is given back never takes it below.
    pub(super) entered: Counter,
    pub(super) weight: u64,
}

impl Account {
    pub(super) fn share(&self, cost: u64) -> Counter {
        share(cost, self.weight)
    }

    /// Something waits again, with the floor as it is.
    pub(super) fn come_back(&mut self, floor: Counter) {
        (self.counter, self.entered) = (self.counter.max(floor), floor);
    }

    pub(super) fn turn(&self, lane: LaneId) -> Option<Turn> {
        self.head.map(|head| Turn { counter: self.counter, head, lane })
    }
}

/// What a cost adds to the counter of an owner of that weight.
pub(super) fn share(cost: u64, weight: u64) -> Counter {
    match u32::try_from(cost.max(1)) {
        // The same in words, since a division of longer numbers takes as long as much else that is done for an item.
        Ok(cost) => Counter::from((u64::from(cost) << 32) / weight),
        Err(_) => (Counter::from(cost) << 32) / Counter::from(weight),
    }
}

fn weight_of(name: &str, weights: &Weights) -> u64 {
    weights.get(name).map_or(1, |weight| weight.get().into())
}

fn key(level: u8, owner: OwnerId) -> u64 {
    (u64::from(level) << 32) | owner.index() as u64
}

impl Accounts {
    pub(super) fn new(weights: Arc<Weights>) -> Self {
        let (all, lanes, last) = (Slab::new(), NumberMap::default(), Vec::new());
        Self { owners: Owners::default(), weights, all, lanes, last }
    }

    pub(super) fn of(&self, lane: LaneId) -> &Account {
        &self.all[lane.index()]
    }

    pub(super) fn get(&self, lane: LaneId) -> Option<&Account> {
        self.all.get(lane.index())
    }

    pub(super) fn of_mut(&mut self, lane: LaneId) -> &mut Account {
        &mut self.all[lane.index()]
    }

    /// All accounts of a level.
    pub(super) fn of_level(&self, level: u8) -> impl Iterator<Item = (LaneId, &Account)> {
        let all = self.all.iter().filter(move |(_, account)| account.level == level);
        all.map(|(at, account)| (LaneId::at(at), account))
    }

    /// The lane of an owner and level that has an account.
    pub(super) fn find(&self, ticket: &Ticket) -> Option<LaneId> {
        let owner = self.owners.find(&ticket.owner)?;
        self.lanes.get(&key(ticket.level, owner)).copied()
    }

    /// The lane of an owner and level; one that had no account begins at the floor.
    pub(super) fn open(&mut self, level: u8, name: &Owner, band: &mut Band) -> LaneId {
        let owner = self.owners.id(name);
        if let Some(lane) = self.last.get(owner.index())
            && self.get(*lane).is_some_and(|account| (account.level, account.owner) == (level, owner))
        {
            return *lane;
        }
        let known = self.lanes.get(&key(level, owner)).copied();
        let lane = known.unwrap_or_else(|| self.enter(level, owner, band));
        if self.last.len() <= owner.index() {
            self.last.resize(owner.index() + 1, lane);
        }
        self.last[owner.index()] = lane;
        lane
    }

    /// An account at the floor, for an owner that has none in that level.
    fn enter(&mut self, level: u8, owner: OwnerId, band: &mut Band) -> LaneId {
        self.owners.hold(owner);
        let (floor, weight) = (band.enter(), weight_of(self.owners.name(owner), &self.weights));
        let account = Account { level, owner, head: None, counter: floor, entered: floor, weight };
        let lane = LaneId::at(self.all.insert(account));
        self.lanes.insert(key(level, owner), lane);
        lane
    }

    /// Forgets an owner in a level.
    pub(super) fn close(&mut self, lane: LaneId) {
        let Account { level, owner, .. } = self.all.remove(lane.index());
        self.lanes.remove(&key(level, owner));
        self.owners.release(owner);
    }

    /// Goes on with other weights; what owners have had stays as it was counted.
    pub(super) fn reweigh(&mut self, weights: Arc<Weights>) {
        self.weights = weights;
        for (_, account) in &mut self.all {
            account.weight = weight_of(self.owners.name(account.owner), &self.weights);
        }
    }

    /// The items of a level, in the order in which they would be served if nothing came.
    pub(super) fn order<T>(&self, level: u8, lanes: &Lanes<T>) -> Vec<TicketId> {
        let mut waiting: BTreeMap<_, _> = self
            .of_level(level)
            .filter_map(|(lane, account)| {
                Some(((account.counter, account.head?), (account, lanes.of(lane).peekable())))
            })
            .collect();
        let mut order = Vec::new();
        while let Some(((counter, _), (account, mut lane))) = waiting.pop_first() {
            let Some(slot) = lane.next() else { continue };
            order.push(slot.id);
            if let Some(next) = lane.peek().map(|next| next.id) {
                let counter = counter.saturating_add(account.share(lanes.cost(slot.details)));
                waiting.insert((counter, next), (account, lane));
            }
        }
        order
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }
}
