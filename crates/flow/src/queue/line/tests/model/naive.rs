//! The reference: a list in order of arrival, and every policy as one says it.

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
}

impl Naive {
    pub(super) fn new(capacity: Capacity, settings: PolicySettings) -> Self {
        Self { capacity, is_open: true, items: Vec::new(), settings, turns: Vec::new() }
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
        sit_down(&mut self.turns, item.owner());
        self.items.push(item);
        self.items.sort_by_key(|item| item.name);
    }

    pub(super) fn put_back(&mut self, item: Item) {
        self.join(item);
    }

    /// Notes what is overdue by now, and that owners of whom nothing waits have no turn.
    pub(super) fn settle(&mut self, now: Duration) {
        for item in &mut self.items {
            item.is_overdue |= item.ticket.deadline.is_some_and(|deadline| deadline <= now);
        }
        let waiting =
            |owner: &String| self.items.iter().any(|item| !item.is_overdue && item.owner() == owner);
        self.turns.retain(waiting);
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
        Some(item)
    }

    pub(super) fn expire(&mut self) -> Vec<usize> {
        let overdue = self.items.iter().filter(|item| item.is_overdue).map(|item| item.name).collect();
        self.items.retain(|item| !item.is_overdue);
        overdue
    }

    pub(super) fn charge(&mut self, _ticket: &Ticket, _actual: u64) {}

    pub(super) fn set_policy(&mut self, settings: PolicySettings) {
        if settings.discipline != self.settings.discipline {
            self.turns.clear();
            for item in self.items.iter().filter(|item| !item.is_overdue) {
                sit_down(&mut self.turns, item.owner());
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
            other => panic!("the policy '{other}' has no naive reference yet"),
        }
        items.into_iter().map(|item| item.name).collect()
    }

    fn aged(&self, level: u8, since: Duration, now: Duration) -> u64 {
        let steps = (now - since).as_millis() / self.settings.age_step.as_millis();
        u64::from(level).saturating_sub(steps as u64)
    }
}

fn sit_down(turns: &mut Vec<String>, owner: &str) {
    if !turns.iter().any(|other| other == owner) {
        turns.push(owner.to_owned());
    }
}

fn items_of<'a>(items: &'a [Item], owner: &str) -> Vec<&'a Item> {
    items.iter().filter(|item| !item.is_overdue && item.owner() == owner).collect()
}

fn items_before(items: &[&Item], item: &Item) -> usize {
    items.iter().filter(|other| other.name < item.name).count()
}
