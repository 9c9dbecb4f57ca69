//! Whose turn it is in a band.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use super::accounts::Counter;
use crate::queue::TicketId;
use crate::queue::lanes::LaneId;

/// Of equal counters, the one whose ticket came first is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Turn {
    pub(super) counter: Counter,
    pub(super) head: TicketId,
    pub(super) lane: LaneId,
}

/// Turns in order, of which the smallest can be had.
///
/// Whoever was served mostly comes behind all others, at once where costs and weights are alike. So a turn that comes
/// last is added to a row, which takes one step, and only the others go into a heap.
#[derive(Debug, Default)]
pub(super) struct Turns {
    row: VecDeque<Turn>,
    heap: BinaryHeap<Reverse<Turn>>,
}

impl Turns {
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.row.len() + self.heap.len()
    }

    #[inline]
    pub(super) fn first(&self) -> Option<&Turn> {
        match (self.row.front(), self.heap.peek()) {
            (Some(row), Some(Reverse(heap))) => Some(row.min(heap)),
            (row, heap) => row.or(heap.map(|Reverse(turn)| turn)),
        }
    }

    #[inline]
    pub(super) fn push(&mut self, turn: Turn) {
        if self.row.back().is_none_or(|last| *last <= turn) {
            self.row.push_back(turn);
        } else {
            self.heap.push(Reverse(turn));
        }
    }

    #[inline]
    pub(super) fn pop(&mut self) {
        let is_in_row = match (self.row.front(), self.heap.peek()) {
            (Some(row), Some(Reverse(heap))) => row < heap,
            (_, heap) => heap.is_none(),
        };
        if is_in_row {
            self.row.pop_front();
        } else {
            self.heap.pop();
        }
    }

    /// Other turns instead of all.
    pub(super) fn rebuild(&mut self, turns: impl Iterator<Item = Turn>) {
        let mut row: Vec<Turn> = turns.collect();
        row.sort_unstable();
        (self.row, self.heap) = (row.into(), BinaryHeap::new());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever comes, the smallest is first.
        #[test]
        fn the_first_is_the_smallest(acts in prop::collection::vec((0..5u8, 0..50u64), 1..400)) {
            let (mut turns, mut all) = (Turns::default(), BTreeSet::new());
            for (at, (act, counter)) in acts.into_iter().enumerate() {
                let turn =
                    Turn { counter: counter.into(), head: TicketId(at as u64), lane: LaneId::at(at) };
                match act {
                    1 | 2 if !all.is_empty() => {
                        all.pop_first();
                        turns.pop();
                    }
                    0 => turns.rebuild(all.iter().rev().copied()),
                    _ => {
                        all.insert(turn);
                        turns.push(turn);
                    }
                }
                prop_assert_eq!(turns.first(), all.first());
                prop_assert_eq!(turns.len(), all.len());
            }
        }
    }
}
