//! The reference: a list in order of arrival, and every policy as one says it.

use std::collections::BTreeMap;

use super::*;

pub(super) const OWNERS: [&str; 4] = ["ann", "bob", "eve", "zoe"];

#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) name: usize,
    pub(super) ticket: Ticket,
    pub(super) arrived: Duration,
    pub(super) is_overdue: bool,
}

impl Item {
    fn owner(&self) -> &str {
        &self.ticket.owner
    }
}

pub(super) struct Naive {
    pub(super) capacity: Capacity,
    pub(super) is_open: bool,
    /// In order of arrival.
    pub(super) items: Vec<Item>,
    settings: PolicySettings,
    /// Whose turn it is, and who comes after.
    turns: Vec<String>,
    shares: BTreeMap<u8, Shares>,
}

/// What owners had of one level, which is never forgotten here.
#[derive(Clone, Debug, Default)]
struct Shares {
    floor: u128,
    since: Duration,
    /// By owner: the counter, the counter with which it came, and whether it waits.
    had: BTreeMap<String, (u128, u128, bool)>,
}

impl Naive {
    pub(super) fn new(capacity: Capacity, settings: PolicySettings) -> Self {
        Self {
            capacity,
            is_open: true,
            items: Vec::new(),
            settings,
            turns: Vec::new(),
            shares: BTreeMap::new(),
        }
    }

    pub(super) fn objection(&self, ticket: &Ticket) -> Option<Reason> {
        let sum =
            |of: fn(&Ticket) -> u64| of(ticket) + self.items.iter().map(|item| of(&item.ticket)).sum::<u64>();
        if !self.is_open {
            Some(Reason::Closed)
        } else if self.items.len() >= self.capacity.items {
            Some(Reason::Items)
        } else if self.items.is_empty() {
            None
        } else if sum(|ticket| ticket.cost) > self.capacity.cost {
            Some(Reason::Cost)
        } else {
            (sum(|ticket| ticket.bytes) > self.capacity.bytes).then_some(Reason::Bytes)
        }
    }

    pub(super) fn join(&mut self, item: Item) {
        self.sit_down(&item);
        self.items.push(item);
        self.items.sort_by_key(|item| item.name);
    }

    pub(super) fn put_back(&mut self, item: Item) {
        self.join(item);
    }

    fn sit_down(&mut self, item: &Item) {
        if !self.turns.iter().any(|other| other == item.owner()) {
            self.turns.push(item.owner().to_owned());
        }
        let shares = self.shares.entry(item.ticket.level).or_default();
        if shares.had.values().all(|(_, _, waits)| !waits) {
            shares.since = item.arrived;
        }
        let (counter, entered, waits) = shares.had.entry(item.owner().to_owned()).or_default();
        if !*waits {
            (*counter, *entered, *waits) = (shares.floor.max(*counter), shares.floor, true);
        }
    }

    /// Notes what is overdue by now, and that owners of whom nothing waits have no turn.
    pub(super) fn settle(&mut self, now: Duration) {
        for item in &mut self.items {
            item.is_overdue |= item.ticket.deadline.is_some_and(|deadline| deadline <= now);
        }
        let waiting =
            |owner: &String| self.items.iter().any(|item| !item.is_overdue && item.owner() == owner);
        self.turns.retain(waiting);
        for (level, shares) in &mut self.shares {
            for (owner, (_, _, waits)) in &mut shares.had {
                let is_its = |item: &&Item| item.owner() == owner && item.ticket.level == *level;
                *waits = self.items.iter().filter(is_its).any(|item| !item.is_overdue);
            }
        }
    }

    pub(super) fn remove(&mut self, name: usize) -> Option<Item> {
        let at = self.items.iter().position(|item| item.name == name)?;
        Some(self.items.remove(at))
    }

    pub(super) fn take(&mut self, now: Duration) -> Option<Item> {
        let item = self.remove(*self.order(now).first()?)?;
        let turn = self.turns.iter().position(|owner| owner == item.owner());
        let owner = turn.map(|turn| self.turns.remove(turn));
        self.turns.extend(owner);
        let weights = self.weights(item.ticket.level);
        let shares = self.shares.get_mut(&item.ticket.level)?;
        let (counter, ..) = shares.had.get_mut(item.owner())?;
        let before = *counter;
        let weight = weight_of(&self.settings, item.owner());
        *counter += share(item.ticket.cost, weight);
        let after = *counter;
        let even = before.max(shares.floor) + share(item.ticket.cost, weights + 1);
        shares.floor = shares.floor.max(even.min(after));
        shares.since = now;
        Some(item)
    }

    /// Sum of the weights of those who wait in a level.
    fn weights(&self, level: u8) -> u128 {
        let had = self.shares.get(&level).into_iter().flat_map(|shares| &shares.had);
        had.filter(|(_, (_, _, waits))| *waits).map(|(owner, _)| weight_of(&self.settings, owner)).sum()
    }

    pub(super) fn expire(&mut self) -> Vec<usize> {
        let overdue = self.items.iter().filter(|item| item.is_overdue).map(|item| item.name).collect();
        self.items.retain(|item| !item.is_overdue);
        overdue
    }

    pub(super) fn charge(&mut self, ticket: &Ticket, actual: u64) {
        let weight = weight_of(&self.settings, &ticket.owner);
        let shares = self.shares.entry(ticket.level).or_default();
        let (counter, entered, waits) = shares.had.entry(ticket.owner.to_string()).or_default();
        if !*waits && *counter <= shares.floor {
            (*counter, *entered) = (shares.floor, shares.floor);
        }
        let (actual, expected) = (actual.max(1), ticket.cost.max(1));
        if actual > expected {
            *counter += share(actual - expected, weight);
        } else if actual < expected {
            *counter = counter.saturating_sub(share(expected - actual, weight)).max(*entered);
        }
    }

    pub(super) fn set_policy(&mut self, settings: PolicySettings) {
        if settings.discipline != self.settings.discipline {
            self.turns.clear();
            self.shares.clear();
            for item in self.items.clone().iter().filter(|item| !item.is_overdue) {
                self.sit_down(item);
            }
        }
        self.settings = settings;
    }

    /// What may be taken, in order.
    pub(super) fn order(&self, now: Duration) -> Vec<usize> {
        let mut items: Vec<&Item> = self.items.iter().filter(|item| !item.is_overdue).collect();
        match self.settings.discipline.name {
            "fifo" => {}
            "priority" => items.sort_by_key(|item| self.aged(item.ticket.level, item.arrived, now)),
            "round_robin" => items.sort_by_cached_key(|item| {
                let before = items_before(&items_of(&self.items, item.owner()), item);
                (before, self.turns.iter().position(|owner| owner == item.owner()))
            }),
            "deadline" => items.sort_by_key(|item| item.ticket.deadline.unwrap_or(Duration::MAX)),
            "fair_share" => return self.shared(&items, now),
            other => panic!("the policy '{other}' has no naive reference yet"),
        }
        items.into_iter().map(|item| item.name).collect()
    }

    /// Serves everything on paper: of the most urgent level, the oldest item of the owner who had least.
    fn shared(&self, items: &[&Item], now: Duration) -> Vec<usize> {
        let (mut left, mut shares, mut order) = (items.to_vec(), self.shares.clone(), Vec::new());
        while !left.is_empty() {
            let urgency = |item: &&&Item| {
                let shares = &shares[&item.ticket.level];
                let level = self.aged(item.ticket.level, shares.since, now);
                (level, shares.since, item.ticket.level, shares.had[item.owner()].0)
            };
            // Of one owner and level the first came first, and of owners who had the same, the one whose first did.
            let next = left.iter().min_by_key(urgency).copied().unwrap().clone();
            left.retain(|item| item.name != next.name);
            let shares = shares.get_mut(&next.ticket.level).unwrap();
            let weight = weight_of(&self.settings, next.owner());
            shares.had.get_mut(next.owner()).unwrap().0 += share(next.ticket.cost, weight);
            shares.since = now;
            order.push(next.name);
        }
        order
    }

    fn aged(&self, level: u8, since: Duration, now: Duration) -> u64 {
        let steps = (now - since).as_millis() / self.settings.age_step.as_millis();
        u64::from(level).saturating_sub(steps as u64)
    }
}

fn weight_of(settings: &PolicySettings, owner: &str) -> u128 {
    settings.weights.get(owner).map_or(1, |weight| u128::from(weight.get()))
}

fn share(cost: u64, weight: u128) -> u128 {
    (u128::from(cost.max(1)) << 32) / weight
}

fn items_of<'a>(items: &'a [Item], owner: &str) -> Vec<&'a Item> {
    items.iter().filter(|item| !item.is_overdue && item.owner() == owner).collect()
}

fn items_before(items: &[&Item], item: &Item) -> usize {
    items.iter().filter(|other| other.name < item.name).count()
}
