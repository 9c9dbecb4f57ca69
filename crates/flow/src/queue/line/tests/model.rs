//! Every policy against a queue so simple that it is seen to be right: a list that is searched from end to end.

mod naive;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::*;
use naive::{Item, Naive};

#[derive(Clone, Debug)]
enum Act {
    Wait(u64),
    Put {
        owner: usize,
        level: u8,
        cost: u64,
        bytes: u64,
        deadline: Option<u64>,
    },
    /// Owners and levels of items that come together.
    PutTogether(Vec<(usize, u8)>),
    Take,
    PutBack(prop::sample::Index),
    Remove(prop::sample::Index),
    Charge(prop::sample::Index, u64),
    Expire,
    Close,
    Policy(usize, u64, u32),
    Capacity(usize, u64, u64),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let any_index = any::<prop::sample::Index>;
    let put = (0..4usize, 0..4u8, 0..30u64, 0..30u64, prop::option::of(0..20_000u64));
    let put = put.prop_map(|(owner, level, cost, bytes, deadline)| Act::Put {
        owner,
        level,
        cost,
        bytes,
        deadline,
    });
    let policy = (0..2 * policy::POLICIES.len(), 1..10_000u64, 1..4u32);
    let act = prop_oneof![
        30 => (0..4000u64).prop_map(Act::Wait),
        80 => put,
        20 => prop::collection::vec((0..4usize, 0..4u8), 0..6).prop_map(Act::PutTogether),
        50 => Just(Act::Take),
        20 => any_index().prop_map(Act::PutBack),
        20 => any_index().prop_map(Act::Remove),
        10 => (any_index(), 0..60u64).prop_map(|(index, cost)| Act::Charge(index, cost)),
        10 => Just(Act::Expire),
        1 => Just(Act::Close),
        4 => policy.prop_map(|(name, age_step, weight)| Act::Policy(name, age_step, weight)),
        4 => (0..20usize, 0..200u64, 0..200u64)
            .prop_map(|(items, cost, bytes)| Act::Capacity(items, cost, bytes)),
    ];
    prop::collection::vec(act, 1..200)
}

/// The line and its reference, to both of which everything happens.
struct Pair {
    line: Line<usize>,
    ids: Vec<TicketId>,
    outside: Vec<(Taken<usize>, Item)>,
    naive: Naive,
    now: Duration,
}

impl Pair {
    fn new(settings: &PolicySettings) -> Self {
        let capacity = Capacity::items(12).cost(100).bytes(120);
        let line = Line::new(capacity, settings.clone());
        let (ids, outside) = (Vec::new(), Vec::new());
        Self { line, ids, outside, naive: Naive::new(capacity, settings.clone()), now: Duration::ZERO }
    }

    fn act(&mut self, act: &Act) {
        match act {
            Act::Wait(millis) => self.now += Duration::from_millis(*millis),
            Act::Put { owner, level, cost, bytes, deadline } => {
                let ticket = Ticket::of(naive::OWNERS[*owner]).level(*level).cost(*cost).bytes(*bytes);
                let deadline = deadline.map(|millis| self.now + Duration::from_millis(millis));
                self.put(Ticket { deadline, ..ticket });
            }
            Act::PutTogether(tickets) => self.put_together(tickets),
            Act::Take => self.take(),
            Act::PutBack(index) if !self.outside.is_empty() => {
                let (taken, item) = self.outside.swap_remove(index.index(self.outside.len()));
                self.line.put_back(taken);
                self.naive.put_back(item);
            }
            Act::Charge(index, actual) if !self.outside.is_empty() => {
                let (_, item) = self.outside.swap_remove(index.index(self.outside.len()));
                self.line.charge(&item.ticket, *actual);
                self.naive.charge(&item.ticket, *actual);
            }
            Act::Remove(index) if !self.ids.is_empty() => {
                let name = index.index(self.ids.len());
                let expected = self.naive.remove(name).map(|_| name);
                assert_eq!(self.line.remove(self.ids[name]), expected);
            }
            Act::Expire => self.expire(),
            Act::Close => {
                self.line.close();
                self.naive.is_open = false;
            }
            Act::Policy(number, age_step, weight) => self.set_policy(*number, *age_step, *weight),
            Act::Capacity(items, cost, bytes) => {
                self.naive.capacity = Capacity { items: *items, cost: *cost, bytes: *bytes };
                self.line.set_capacity(self.naive.capacity);
            }
            Act::PutBack(_) | Act::Remove(_) | Act::Charge(..) => {}
        }
        self.naive.settle(self.now);
    }

    /// Half of the numbers mean another policy and half other settings of the present one.
    fn set_policy(&mut self, number: usize, age_step: u64, weight: u32) {
        let other = policy::POLICIES.get(number).copied();
        let settings = PolicySettings::from(other.unwrap_or(self.line.policy().discipline));
        let weight = std::num::NonZeroU32::new(weight).unwrap();
        let settings = settings.age_step(Duration::from_millis(age_step)).weight(naive::OWNERS[1], weight);
        self.line.set_policy(settings.clone());
        self.naive.set_policy(settings);
    }

    fn put(&mut self, ticket: Ticket) {
        let name = self.ids.len();
        let expected = self.naive.objection(&ticket);
        assert_eq!(self.line.has_room(&ticket).err(), expected);
        let outcome = self.line.try_put(name, ticket.clone(), self.now);
        assert_eq!(outcome.as_ref().err(), expected.map(|reason| Refused { item: name, reason }).as_ref());
        if let Ok(id) = outcome {
            self.ids.push(id);
            self.naive.join(Item { name, ticket, arrived: self.now, is_overdue: false });
        }
    }

    /// Whoever puts a batch has seen to it that there is room.
    fn put_together(&mut self, tickets: &[(usize, u8)]) {
        let held = self.naive.items.len();
        if !self.naive.is_open || held + tickets.len() > self.naive.capacity.items {
            return;
        }
        let ticket = |(owner, level): &(usize, u8)| Ticket::of(naive::OWNERS[*owner]).level(*level);
        let names = self.ids.len()..;
        let (batch, rest) = Batch::gather(names.clone().zip(tickets.iter().map(ticket)));
        assert!(rest.is_empty(), "none of them has anything rare");
        let first = self.line.next_id;
        self.line.admit_batch(TicketId(first), Moment::of(self.now), batch);
        for (id, (name, ticket)) in (first..).zip(names.zip(tickets.iter().map(ticket))) {
            self.ids.push(TicketId(id));
            self.naive.join(Item { name, ticket, arrived: self.now, is_overdue: false });
        }
    }

    fn take(&mut self) {
        let expected = self.naive.take(self.now);
        let taken = self.line.take(self.now);
        assert_eq!(taken.as_ref().map(|taken| taken.item), expected.as_ref().map(|item| item.name));
        if let Some((taken, item)) = taken.zip(expected) {
            assert_eq!((&taken.ticket(), taken.arrived()), (&item.ticket, item.arrived));
            self.outside.push((taken, item));
        }
    }

    fn expire(&mut self) {
        let found: Vec<usize> = self.line.expire(self.now).into_iter().map(|taken| taken.item).collect();
        assert_eq!(found, self.naive.expire());
    }

    fn compare(&mut self) {
        let items = &self.naive.items;
        let names: Vec<usize> = items.iter().map(|item| item.name).collect();
        assert!(self.line.iter().map(|(_, name)| *name).eq(names.iter().copied()));
        assert_eq!(self.line.len(), items.len());
        assert_eq!(self.line.cost(), items.iter().map(|item| item.ticket.cost).sum::<u64>());
        assert_eq!(self.line.bytes(), items.iter().map(|item| item.ticket.bytes).sum::<u64>());
        let oldest = items.iter().map(|item| self.now - item.arrived).max();
        assert_eq!(self.line.oldest_age(self.now), oldest);
        let deadlines = items.iter().filter_map(|item| item.ticket.deadline);
        assert_eq!(self.line.next_deadline(), deadlines.min().map(|deadline| deadline.max(self.now)));
        let last = items.iter().filter(|item| !item.is_overdue).map(|item| self.ids[item.name]).max();
        assert_eq!(self.line.newest(), last);
    }

    /// Compares the order, too, which sorts what came together.
    fn compare_order(&mut self) {
        let order = self.naive.order(self.now);
        let expected: Vec<TicketId> = order.into_iter().map(|name| self.ids[name]).collect();
        assert_eq!(self.line.order(self.now), expected);
        assert_eq!(self.line.next_ticket(self.now).map(|(id, _)| id), expected.first().copied());
    }

    /// Everything that was accepted is somewhere once.
    fn finish(mut self) {
        self.expire();
        let expected: Vec<usize> = self.naive.items.iter().map(|item| item.name).collect();
        let left: Vec<usize> = self.line.drain().into_iter().map(|taken| taken.item).collect();
        assert_eq!(left, expected);
        assert!(self.line.is_empty() && self.line.cost() == 0 && self.line.bytes() == 0);
        assert!(self.line.order(self.now).is_empty());
    }
}

/// How many sequences every policy goes through, each of up to 200 acts.
const CASES: u32 = 10_000;

/// Begins under one policy, which now and then changes on the way.
fn agrees(policy: &str) {
    let settings = PolicySettings::from(policy.parse::<Discipline>().unwrap());
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(CASES) };
    let outcome = TestRunner::new(config).run(&acts(), |acts| {
        let mut pair = Pair::new(&settings);
        for act in &acts {
            pair.act(act);
            if !matches!(act, Act::PutTogether(_)) {
                pair.compare_order();
            }
            pair.compare();
        }
        pair.finish();
        Ok(())
    });
    outcome.unwrap();
}

#[test]
fn fifo_agrees_with_its_naive_reference() {
    agrees("fifo");
}

#[test]
fn priority_agrees_with_its_naive_reference() {
    agrees("priority");
}

#[test]
fn round_robin_agrees_with_its_naive_reference() {
    agrees("round_robin");
}

#[test]
fn fair_share_agrees_with_its_naive_reference() {
    agrees("fair_share");
}

#[test]
fn deadline_agrees_with_its_naive_reference() {
    agrees("deadline");
}
