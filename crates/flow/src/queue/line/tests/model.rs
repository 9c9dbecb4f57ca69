//! Every policy against a queue so simple that it is seen to be right: a list that is searched from end to end.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
struct Naive {
    name: usize,
    level: u8,
    cost: u64,
    deadline: Option<Duration>,
    arrived: Duration,
}

impl Naive {
    fn is_overdue(&self, now: Duration) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= now)
    }

    /// What decides between two items; the smaller goes first.
    fn rank(&self, discipline: Discipline, now: Duration) -> (u64, usize) {
        let steps = ((now - self.arrived).as_millis() / policy::AGE_STEP.as_millis()) as u64;
        match discipline.name {
            "fifo" => (0, self.name),
            "priority" => (u64::from(self.level).saturating_sub(steps), self.name),
            other => panic!("the policy '{other}' has no naive reference yet"),
        }
    }
}

#[derive(Clone, Debug)]
enum Act {
    Wait(u64),
    Put { level: u8, cost: u64, deadline: Option<u64> },
    Take,
    PutBack(prop::sample::Index),
    Remove(prop::sample::Index),
    Expire,
    Close,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let put = (0..4u8, 0..30u64, prop::option::of(0..20_000u64));
    let act = prop_oneof![
        3 => (0..4000u64).prop_map(Act::Wait),
        8 => put.prop_map(|(level, cost, deadline)| Act::Put { level, cost, deadline }),
        5 => Just(Act::Take),
        2 => any::<prop::sample::Index>().prop_map(Act::PutBack),
        2 => any::<prop::sample::Index>().prop_map(Act::Remove),
        1 => Just(Act::Expire),
        1 => prop_oneof![20 => Just(Act::Take), 1 => Just(Act::Close)],
    ];
    prop::collection::vec(act, 1..200)
}

struct Pair {
    discipline: Discipline,
    queue: Line<usize>,
    ids: Vec<TicketId>,
    outside: Vec<(Taken<usize>, Naive)>,
    naive: Vec<Naive>,
    is_open: bool,
    now: Duration,
}

const SMALL: Capacity = Capacity { items: 12, cost: 100 };

impl Pair {
    fn new(discipline: Discipline) -> Self {
        let queue = Line::new(SMALL, discipline);
        let (ids, outside, naive) = (Vec::new(), Vec::new(), Vec::new());
        Self { discipline, queue, ids, outside, naive, is_open: true, now: Duration::ZERO }
    }

    fn act(&mut self, act: &Act) {
        match act {
            Act::Wait(millis) => self.now += Duration::from_millis(*millis),
            Act::Put { level, cost, deadline } => self.put(*level, *cost, *deadline),
            Act::Take => self.take(),
            Act::PutBack(index) if !self.outside.is_empty() => {
                let (taken, naive) = self.outside.swap_remove(index.index(self.outside.len()));
                self.queue.put_back(taken);
                self.naive.push(naive);
            }
            Act::Remove(index) if !self.ids.is_empty() => {
                let name = index.index(self.ids.len());
                let expected = self.naive.iter().position(|item| item.name == name);
                expected.map(|at| self.naive.remove(at));
                assert_eq!(self.queue.remove(self.ids[name]), expected.map(|_| name));
            }
            Act::Expire => self.expire(),
            Act::Close => {
                self.queue.close();
                self.is_open = false;
            }
            Act::PutBack(_) | Act::Remove(_) => {}
        }
    }

    fn put(&mut self, level: u8, cost: u64, deadline: Option<u64>) {
        let (name, arrived) = (self.ids.len(), self.now);
        let deadline = deadline.map(|millis| self.now + Duration::from_millis(millis));
        let total: u64 = self.naive.iter().map(|item| item.cost).sum();
        let expected = if !self.is_open {
            Err(Reason::Closed)
        } else if self.naive.len() >= SMALL.items {
            Err(Reason::Items)
        } else if !self.naive.is_empty() && total + cost > SMALL.cost {
            Err(Reason::Cost)
        } else {
            Ok(())
        };
        assert_eq!(self.queue.has_room(cost), expected);
        let outcome = self.queue.try_put(name, ticket(level, cost, deadline), self.now);
        assert_eq!(
            outcome.as_ref().err(),
            expected.err().map(|reason| Refused { item: name, reason }).as_ref()
        );
        if let Ok(id) = outcome {
            self.ids.push(id);
            self.naive.push(Naive { name, level, cost, deadline, arrived });
        }
    }

    fn take(&mut self) {
        let expected = self.line().first().cloned();
        let taken = self.queue.take(self.now);
        assert_eq!(taken.as_ref().map(|taken| taken.item), expected.as_ref().map(|item| item.name));
        if let Some((taken, item)) = taken.zip(expected) {
            self.naive.retain(|other| other.name != item.name);
            self.outside.push((taken, item));
        }
    }

    fn expire(&mut self) {
        let mut expected: Vec<usize> =
            self.naive.iter().filter(|item| item.is_overdue(self.now)).map(|item| item.name).collect();
        expected.sort_unstable();
        self.naive.retain(|item| !item.is_overdue(self.now));
        let found: Vec<usize> = self.queue.expire(self.now).into_iter().map(|taken| taken.item).collect();
        assert_eq!(found, expected);
    }

    /// What may be taken, in order.
    fn line(&self) -> Vec<Naive> {
        let mut line: Vec<Naive> =
            self.naive.iter().filter(|item| !item.is_overdue(self.now)).cloned().collect();
        line.sort_by_key(|item| item.rank(self.discipline, self.now));
        line
    }

    fn compare(&mut self) {
        let expected: Vec<TicketId> = self.line().iter().map(|item| self.ids[item.name]).collect();
        assert_eq!(self.queue.order(self.now), expected);
        assert_eq!(self.queue.next_ticket(self.now).map(|(id, _)| id), expected.first().copied());
        assert_eq!(self.queue.len(), self.naive.len());
        assert_eq!(self.queue.cost(), self.naive.iter().map(|item| item.cost).sum::<u64>());
        let oldest = self.naive.iter().map(|item| self.now - item.arrived).max();
        assert_eq!(self.queue.oldest_age(self.now), oldest);
        let deadlines = self.naive.iter().filter_map(|item| item.deadline);
        assert_eq!(self.queue.next_deadline(), deadlines.min().map(|deadline| deadline.max(self.now)));
    }

    /// Everything that was accepted is somewhere once.
    fn finish(mut self) {
        self.expire();
        let mut expected: Vec<usize> = self.naive.iter().map(|item| item.name).collect();
        expected.sort_unstable();
        let left: Vec<usize> = self.queue.drain().into_iter().map(|taken| taken.item).collect();
        assert_eq!(left, expected);
        assert!(self.queue.is_empty() && self.queue.cost() == 0 && self.queue.order(self.now).is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn every_policy_agrees_with_its_naive_reference(acts in acts()) {
        for discipline in policy::POLICIES {
            let mut pair = Pair::new(discipline);
            for act in &acts {
                pair.act(act);
                pair.compare();
            }
            pair.finish();
        }
    }
}
