//! The pool against a list of who owns what and a list of what is idle.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

#[derive(Clone, Debug)]
enum Act {
    Allocate,
    Share(Index),
    Revive(Index),
    Release(Index),
    Keep(Index),
    Forget(Index),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let index = any::<Index>;
    let act = prop_oneof![
        4 => Just(Act::Allocate),
        2 => index().prop_map(Act::Share),
        2 => index().prop_map(Act::Revive),
        5 => index().prop_map(Act::Release),
        3 => index().prop_map(Act::Keep),
        1 => index().prop_map(Act::Forget),
    ];
    prop::collection::vec(act, 0..300)
}

/// What the pool should be: one entry for every owner of every page, the pages to keep, the idle ones by age.
#[derive(Default)]
struct Model {
    total: u32,
    held: Vec<PageId>,
    kept: Vec<PageId>,
    idle: Vec<PageId>,
}

impl Model {
    fn act(&mut self, act: &Act, pool: &mut PagePool) {
        let pick = |from: &[PageId], index: &Index| from[index.index(from.len())];
        match act {
            Act::Allocate => self.allocate(pool),
            Act::Share(index) if !self.held.is_empty() => {
                let page = pick(&self.held, index);
                pool.share(page);
                self.held.push(page);
            }
            Act::Revive(index) if !self.idle.is_empty() => {
                let page = pick(&self.idle, index);
                pool.share(page);
                self.idle.retain(|idle| *idle != page);
                self.held.push(page);
            }
            Act::Release(index) if !self.held.is_empty() => {
                let page = self.held.swap_remove(index.index(self.held.len()));
                pool.release(page);
                if !self.held.contains(&page) && self.kept.contains(&page) {
                    self.idle.push(page);
                }
            }
            Act::Keep(index) if !self.held.is_empty() => {
                let page = pick(&self.held, index);
                pool.keep(page);
                self.kept.push(page);
            }
            Act::Forget(index) if !self.kept.is_empty() => {
                let page = pick(&self.kept, index);
                pool.forget(page);
                self.kept.retain(|kept| *kept != page);
                self.idle.retain(|idle| *idle != page);
            }
            _ => {}
        }
    }

    fn allocate(&mut self, pool: &mut PagePool) {
        let free = pool.available() > self.idle.len();
        match pool.allocate() {
            None => assert_eq!(pool.used(), pool.total(), "refused although pages are available"),
            Some(page) => {
                assert!(page < self.total && !self.held.contains(&page), "page {page} is in use");
                if free {
                    assert!(!self.idle.contains(&page), "page {page} was thrown away without need");
                } else {
                    assert_eq!(self.idle.remove(0), page, "the page that was idle for longest goes first");
                }
                self.kept.retain(|kept| *kept != page);
                self.held.push(page);
            }
        }
    }

    /// What the pool says is what the owners hold: no page is lost, none is with two strangers.
    fn assert_agrees(&self, pool: &PagePool) {
        let mut owners: BTreeMap<PageId, u32> = BTreeMap::new();
        for page in &self.held {
            *owners.entry(*page).or_default() += 1;
        }
        for page in 0..self.total {
            assert_eq!(pool.owners(page), owners.get(&page).copied().unwrap_or(0), "page {page}");
        }
        assert_eq!(pool.used(), owners.len());
        assert_eq!(pool.idle(), self.idle.len());
        assert_eq!(pool.used() + pool.available(), pool.total());
        assert_eq!(pool.total(), self.total as usize);
    }
}

proptest! {
    #[test]
    fn pages_are_neither_lost_nor_given_twice(total in 0..20u32, acts in acts()) {
        let mut pool = PagePool::new(total);
        let mut model = Model { total, ..Model::default() };
        for act in acts {
            model.act(&act, &mut pool);
            model.assert_agrees(&pool);
        }
        model.held.drain(..).for_each(|page| pool.release(page));
        let all: std::collections::BTreeSet<PageId> = std::iter::from_fn(|| pool.allocate()).collect();
        prop_assert_eq!(all.len(), total as usize);
        prop_assert_eq!(pool.idle(), 0);
    }
}

#[test]
fn the_page_freed_last_is_handed_out_first() {
    let mut pool = PagePool::new(3);
    let pages = [0; 3].map(|_| pool.allocate().unwrap());
    pages.iter().for_each(|&page| pool.release(page));
    assert_eq!([0; 3].map(|_| pool.allocate().unwrap()), [pages[2], pages[1], pages[0]]);
}

fn assert_panics(act: impl FnOnce(&mut PagePool)) {
    let mut pool = PagePool::new(1);
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| act(&mut pool)));
    assert!(caught.is_err());
    assert_eq!((pool.used(), pool.available()), (0, 1), "a refused call changes nothing");
}

#[test]
fn pages_that_nobody_owns_are_neither_shared_nor_kept_nor_released() {
    assert_panics(|pool| pool.share(0));
    assert_panics(|pool| pool.keep(0));
    assert_panics(|pool| pool.release(0));
    assert_panics(|pool| pool.release(7));
    assert_panics(|pool| {
        let page = pool.allocate().unwrap();
        pool.release(page);
        pool.release(page);
    });
    assert_panics(|pool| {
        let page = pool.allocate().unwrap();
        pool.keep(page);
        pool.release(page);
        pool.forget(page);
        pool.share(page);
    });
}
