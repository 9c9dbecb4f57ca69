//! The most urgent level first, and inside of a level first come, first served. Waiting raises urgency: after every
//! age step a ticket counts as one level more urgent, until it is level with the most urgent ones. From then on only
//! tickets that came before it go first, so nothing waits longer than `level × age step` plus the service of those.

use super::{Chosen, Discipline, Next, Policy, PolicySettings};
use crate::queue::lanes::{LaneCount, LaneId, Lanes, Seen, nanos};
use crate::queue::packing::Details;
use crate::queue::{Owner, TicketId};

/// A lane for each level. In a level the first arrival has waited longest, so it is at least as urgent as the rest.
#[derive(Debug, Default)]
pub(in crate::queue) struct Priority {
    /// A bit for every level in which something waits.
    waiting: [u64; 4],
    /// In nanoseconds.
    age_step: u64,
    /// Until then nothing that waits counts as more urgent than it came, so that levels alone decide.
    calm_until: u64,
}

impl Priority {
    fn new(age_step: u64) -> Self {
        Self { age_step, ..Self::default() }
    }

    /// The levels in which something waits, the most urgent first.
    #[inline]
    fn levels(&self) -> impl Iterator<Item = u8> {
        let words = self.waiting.iter().zip([0, 64, 128, 192]);
        words.flat_map(|(word, first)| {
            let mut left = *word;
            std::iter::from_fn(move || {
                let level = (left != 0).then(|| first + left.trailing_zeros() as u8)?;
                left &= left - 1;
                Some(level)
            })
        })
    }

    /// From when on a ticket counts as more urgent than it came.
    fn ages_at(&self, level: u8, arrived: u64) -> u64 {
        if level == 0 { u64::MAX } else { arrived.saturating_add(self.age_step.max(1)) }
    }

    fn rank<T>(&self, level: u8, slot: &Seen<'_, T>, now: u64) -> (u8, TicketId) {
        (super::aged(level, now.saturating_sub(slot.arrived), self.age_step), slot.id)
    }

    /// Of the heads of all levels, the one that is most urgent by now.
    #[cold]
    fn weigh<T>(&mut self, lanes: &Lanes<T>, now: u64) -> Option<Next> {
        let heads =
            || self.levels().filter_map(|level| Some((level, lanes.first(LaneId::at(level.into()))?)));
        let calm_until = heads().map(|(level, head)| self.ages_at(level, head.arrived)).min();
        let first = heads().min_by_key(|(level, head)| self.rank(*level, head, now));
        let first = first.map(|(level, _)| Next::First(LaneId::at(level.into())));
        self.calm_until = calm_until.unwrap_or(u64::MAX);
        first
    }
}

impl Policy for Priority {
    const LANES: LaneCount = LaneCount::Few;

    #[inline]
    fn lane(&mut self, _owner: &Owner, details: Details) -> LaneId {
        LaneId::at(details.level().into())
    }

    #[inline]
    fn joined(&mut self, lane: LaneId, _id: TicketId, arrived: u64) {
        let level = lane.index() as u8;
        self.waiting[usize::from(level / 64)] |= 1 << (level % 64);
        self.calm_until = self.calm_until.min(self.ages_at(level, arrived));
    }

    #[inline]
    fn left<T>(&mut self, lane: LaneId, lanes: &Lanes<T>) {
        if lanes.is_empty(lane) {
            self.waiting[lane.index() / 64] &= !(1 << (lane.index() % 64));
        }
    }

    #[inline]
    fn stays(&self, now: u64) -> bool {
        now < self.calm_until
    }

    #[inline]
    fn next<T>(&mut self, lanes: &Lanes<T>, now: u64) -> Option<Next> {
        if now >= self.calm_until {
            return self.weigh(lanes, now);
        }
        self.levels().next().map(|level| Next::First(LaneId::at(level.into())))
    }

    fn order<T>(&self, lanes: &Lanes<T>, now: u64) -> Vec<TicketId> {
        let all =
            self.levels().flat_map(|level| lanes.of(LaneId::at(level.into())).map(move |slot| (level, slot)));
        let mut ranked: Vec<_> = all.map(|(level, slot)| self.rank(level, &slot, now)).collect();
        ranked.sort_unstable();
        ranked.into_iter().map(|(_, id)| id).collect()
    }

    fn configure<T>(&mut self, settings: &PolicySettings, _lanes: &Lanes<T>) {
        (self.age_step, self.calm_until) = (nanos(settings.age_step), 0);
    }
}

pub(super) const POLICY: Discipline = Discipline {
    name: "priority",
    about: "the most urgent first; waiting raises urgency, so nothing starves",
    build: |settings| Chosen::Priority(Priority::new(nanos(settings.age_step))),
};
