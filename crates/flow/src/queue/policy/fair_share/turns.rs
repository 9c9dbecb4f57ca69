//! Whose turn it is in a band.

use std::cmp::Reverse;
use std::collections::binary_heap::PeekMut;
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
        if self.comes_last(&turn) {
            self.row.push_back(turn);
        } else {
            self.heap.push(Reverse(turn));
        }
    }

    /// Takes the first out, and puts another in its place, if there is one.
    #[inline]
    pub(super) fn replace_first(&mut self, turn: Option<Turn>) {
        let inner = turn.filter(|turn| !self.comes_last(turn));
        let row = self.row.front();
        if let Some(mut first) = self.heap.peek_mut()
            && row.is_none_or(|row| first.0 < *row)
        {
            match inner {
                Some(turn) => *first = Reverse(turn),
                None => {
                    PeekMut::pop(first);
                    self.row.extend(turn);
                }
            }
            return;
        }
        self.row.pop_front();
        match inner {
            Some(turn) => self.heap.push(Reverse(turn)),
            None => self.row.extend(turn),
        }
    }

    #[inline]
    fn comes_last(&self, turn: &Turn) -> bool {
        self.row.back().is_none_or(|last| last <= turn)
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
        fn the_first_is_the_smallest(acts in prop::collection::vec((0..4u8, 0..50u64), 1..400)) {
            let (mut turns, mut all) = (Turns::default(), BTreeSet::new());
            for (at, (act, counter)) in acts.into_iter().enumerate() {
                let turn =
                    Turn { counter: counter.into(), head: TicketId(at as u64), lane: LaneId::at(at) };
                match act {
                    0 if !all.is_empty() => {
                        all.pop_first();
                        turns.replace_first(None);
                    }
                    1 if !all.is_empty() => {
                        all.pop_first();
                        all.insert(turn);
                        turns.replace_first(Some(turn));
                    }
                    2 => turns.rebuild(all.iter().rev().copied()),
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
