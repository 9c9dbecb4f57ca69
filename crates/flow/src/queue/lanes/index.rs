//! In which lane items wait, by their ids, in order of arrival.

use std::collections::VecDeque;

use super::LaneId;
use crate::queue::TicketId;

/// Ids of a page: few enough that one straggler does not keep much, enough that a page costs little per id.
const PAGE: usize = 32;

/// An ordered map from ids to lanes.
///
/// Ids are given out one after the other, so those that wait lie close together: pages of consecutive ids take 5 bytes
/// an id, and the page of an id is mostly where counting from the first page says.
#[derive(Default)]
pub(super) struct Index {
    /// In order of their numbers. The first one is not empty unless it is the only one.
    pages: VecDeque<Page>,
    /// Pages without an id.
    empty: usize,
    len: usize,
}

struct Page {
    number: u64,
    lanes: Box<[LaneId; PAGE]>,
    /// A bit for every id that is there.
    taken: u32,
}

impl Page {
    fn get(&self, slot: usize) -> Option<LaneId> {
        (self.taken & 1 << slot != 0).then(|| self.lanes[slot])
    }
}

fn split(id: TicketId) -> (u64, usize) {
    (id.0 / PAGE as u64, (id.0 % PAGE as u64) as usize)
}

impl Index {
    pub(super) fn get(&self, id: TicketId) -> Option<LaneId> {
        let (number, slot) = split(id);
        self.pages[self.find(number).ok()?].get(slot)
    }

    /// Adds an id that is not there.
    #[inline]
    pub(super) fn insert(&mut self, id: TicketId, lane: LaneId) {
        let (number, slot) = split(id);
        let at = self.find(number).unwrap_or_else(|at| {
            self.pages.insert(at, Page { number, lanes: Box::new([LaneId::FIRST; PAGE]), taken: 0 });
            self.empty += 1;
            at
        });
        let page = &mut self.pages[at];
        self.empty -= usize::from(page.taken == 0);
        page.lanes[slot] = lane;
        page.taken |= 1 << slot;
        self.len += 1;
        if self.pages[0].taken == 0 {
            self.trim();
        }
    }

    #[inline]
    pub(super) fn remove(&mut self, id: TicketId) -> Option<LaneId> {
        let (number, slot) = split(id);
        let at = self.find(number).ok()?;
        let page = &mut self.pages[at];
        let lane = page.get(slot)?;
        page.taken &= !(1 << slot);
        self.len -= 1;
        if page.taken == 0 {
            self.empty += 1;
            self.trim();
        }
        Some(lane)
    }

    /// The lane of the smallest id.
    pub(super) fn first(&self) -> Option<LaneId> {
        let page = self.pages.front()?;
        (page.taken != 0).then(|| page.lanes[page.taken.trailing_zeros() as usize])
    }

    /// The page of that number, or where it would have to be inserted.
    #[inline]
    fn find(&self, number: u64) -> Result<usize, usize> {
        let Some(first) = self.pages.front() else { return Err(0) };
        let guess = usize::try_from(number.wrapping_sub(first.number)).unwrap_or(usize::MAX);
        match self.pages.get(guess) {
            Some(page) if page.number == number => Ok(guess),
            _ => self.search(number),
        }
    }

    fn search(&self, number: u64) -> Result<usize, usize> {
        match self.pages.back() {
            Some(last) if last.number < number => Err(self.pages.len()),
            Some(last) if last.number == number => Ok(self.pages.len() - 1),
            _ => self.pages.binary_search_by_key(&number, |page| page.number),
        }
    }

    /// Lets go empty pages: those at either end at once, those in between once they are more than the others.
    fn trim(&mut self) {
        while self.pages.len() > 1 && self.pages[0].taken == 0 {
            self.pages.pop_front();
            self.empty -= 1;
        }
        while self.pages.len() > 1 && self.pages.back().is_some_and(|last| last.taken == 0) {
            self.pages.pop_back();
            self.empty -= 1;
        }
        if self.empty > self.pages.len() / 2 && self.pages.len() > 1 {
            self.pages.retain(|page| page.taken != 0);
            self.empty = 0;
        }
        if self.len == 0 && self.pages.capacity() > PAGE {
            self.pages.shrink_to(PAGE);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Any ids in any order, far apart or close together.
        #[test]
        fn it_is_an_ordered_map(acts in prop::collection::vec((0..3u8, 0..600u64, 0..4u64), 1..400)) {
            let (mut index, mut map) = (Index::default(), BTreeMap::new());
            for (act, low, high) in acts {
                let id = TicketId(low + high * 1_000_000);
                if act > 0 && !map.contains_key(&id) {
                    let lane = LaneId::at(low as usize);
                    index.insert(id, lane);
                    map.insert(id, lane);
                } else {
                    prop_assert_eq!(index.remove(id), map.remove(&id));
                }
                prop_assert_eq!(index.get(id), map.get(&id).copied());
                prop_assert_eq!(index.first(), map.values().next().copied());
                prop_assert_eq!(index.len, map.len());
                prop_assert!(index.pages.len() <= 2 * map.len() + 1);
            }
        }
    }
}
