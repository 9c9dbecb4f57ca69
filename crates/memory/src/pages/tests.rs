//! The pool against a list of who owns what.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Act {
    Allocate,
    Share(prop::sample::Index),
    Release(prop::sample::Index),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        4 => Just(Act::Allocate),
        2 => any::<prop::sample::Index>().prop_map(Act::Share),
        5 => any::<prop::sample::Index>().prop_map(Act::Release),
    ];
    prop::collection::vec(act, 0..300)
}

/// What the pool says is what the owners hold: no page is lost, none is with two strangers.
fn assert_agree(pool: &PagePool, held: &[PageId], total: u32) {
    let mut owners: BTreeMap<PageId, u32> = BTreeMap::new();
    for page in held {
        *owners.entry(*page).or_default() += 1;
    }
    for page in 0..total {
        assert_eq!(pool.owners(page), owners.get(&page).copied().unwrap_or(0), "page {page}");
    }
    assert_eq!(pool.used(), owners.len());
    assert_eq!(pool.used() + pool.available(), pool.total());
    assert_eq!(pool.total(), total as usize);
}

proptest! {
    #[test]
    fn pages_are_neither_lost_nor_given_twice(total in 0..20u32, acts in acts()) {
        let mut pool = PagePool::new(total);
        // One entry for every owner of every page.
        let mut held: Vec<PageId> = Vec::new();
        for act in acts {
            match act {
                Act::Allocate => match pool.allocate() {
                    Some(page) => {
                        prop_assert!(page < total && !held.contains(&page), "page {page} is in use");
                        held.push(page);
                    }
                    None => prop_assert_eq!(pool.used(), pool.total(), "refused although pages are free"),
                },
                Act::Share(index) if !held.is_empty() => {
                    let page = held[index.index(held.len())];
                    pool.share(page);
                    held.push(page);
                }
                Act::Release(index) if !held.is_empty() => {
                    let page = held.swap_remove(index.index(held.len()));
                    pool.release(page);
                    let is_last = !held.contains(&page);
                    prop_assert_eq!(pool.owners(page) == 0, is_last);
                    if is_last {
                        let mut next = PagePool { owners: pool.owners.clone(), free: pool.free.clone() };
                        prop_assert_eq!(next.allocate(), Some(page), "the last page released is the first reused");
                    }
                }
                Act::Share(_) | Act::Release(_) => {}
            }
            assert_agree(&pool, &held, total);
        }
        held.drain(..).for_each(|page| pool.release(page));
        assert_agree(&pool, &[], total);
        let all: std::collections::BTreeSet<PageId> = std::iter::from_fn(|| pool.allocate()).collect();
        prop_assert_eq!(all.len(), total as usize);
    }
}

fn assert_panics(act: impl FnOnce(&mut PagePool)) {
    let mut pool = PagePool::new(1);
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| act(&mut pool)));
    assert!(caught.is_err());
    assert_eq!((pool.used(), pool.available()), (0, 1), "a refused call changes nothing");
}

#[test]
fn pages_that_nobody_owns_are_neither_shared_nor_released() {
    assert_panics(|pool| pool.share(0));
    assert_panics(|pool| pool.release(0));
    assert_panics(|pool| pool.release(7));
    assert_panics(|pool| {
        let page = pool.allocate().unwrap();
        pool.release(page);
        pool.release(page);
    });
}
