//! The pool as its users see it, and the gate under a model checker.

use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;

use super::*;

mod model;

#[test]
fn every_worker_runs_once_a_round() {
    for threads in [0, 1, 2, 3, 8] {
        let pool = Pool::new(threads);
        let counts: Vec<AtomicUsize> = (0..pool.threads()).map(|_| AtomicUsize::new(0)).collect();
        for round in 1..=200 {
            pool.run(&|worker| {
                counts[worker].fetch_add(1, Ordering::Relaxed);
            });
            assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == round));
        }
        assert_eq!(pool.threads(), threads.max(1));
    }
}

#[test]
fn every_item_meets_the_memory_of_one_thread() {
    for threads in [1, 2, 5] {
        let pool = Pool::new(threads);
        let mut met = PerThread::<Vec<usize>>::default();
        for (round, pool) in [(1, Some(&pool)), (2, None), (3, Some(&pool))] {
            let items: Vec<usize> = (0..100).collect();
            met.for_each(&items, pool, |own, item| own.push(*item));
            let mut all: Vec<usize> = met.iter_mut().flat_map(|own| own.iter().copied()).collect();
            all.sort_unstable();
            let expected: Vec<usize> = items.iter().flat_map(|item| vec![*item; round]).collect();
            assert_eq!(all, expected, "{threads} threads");
        }
        assert_eq!(met.iter_mut().count(), threads);
    }
}

#[test]
fn what_panics_on_one_thread_leaves_the_others_memory() {
    let (pool, mut met) = (Pool::new(3), PerThread::<Vec<usize>>::default());
    let round = |met: &mut PerThread<Vec<usize>>, wrong: usize| {
        met.for_each(&[0, 1, 2, 3], Some(&pool), |own, item| {
            assert_ne!(*item, wrong, "poison");
            own.push(*item);
        });
    };
    assert!(catch_unwind(AssertUnwindSafe(|| round(&mut met, 2))).is_err());
    met.iter_mut().for_each(Vec::clear);
    round(&mut met, 9);
    assert_eq!(met.iter_mut().map(|own| own.len()).sum::<usize>(), 4);
}

#[test]
fn callers_take_turns() {
    let pool = Pool::new(3);
    let (inside, rounds) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..100 {
                    let own = AtomicUsize::new(0);
                    pool.run(&|_| {
                        assert!(inside.fetch_add(1, Ordering::SeqCst) < 3, "two rounds at a time");
                        own.fetch_add(1, Ordering::Relaxed);
                        inside.fetch_sub(1, Ordering::SeqCst);
                    });
                    assert_eq!(own.load(Ordering::Relaxed), 3);
                    rounds.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(rounds.load(Ordering::Relaxed), 400);
}

#[test]
fn panics_reach_the_caller_after_all_have_returned() {
    let pool = Pool::new(3);
    for guilty in 0..3 {
        let returned = AtomicUsize::new(0);
        let caught = catch_unwind(AssertUnwindSafe(|| {
            pool.run(&|worker| {
                assert_ne!(worker, guilty, "guilty");
                returned.fetch_add(1, Ordering::Relaxed);
            });
        }));
        assert!(caught.unwrap_err().downcast_ref::<String>().unwrap().contains("guilty"));
        assert_eq!(returned.load(Ordering::Relaxed), 2);
        let after = AtomicUsize::new(0);
        pool.run(&|_| {
            after.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(after.load(Ordering::Relaxed), 3, "the pool works on");
    }
}

#[test]
fn nested_runs_are_refused_instead_of_standing_still() {
    for threads in [1, 2] {
        let pool = Pool::new(threads);
        let caught = catch_unwind(AssertUnwindSafe(|| pool.run(&|_| pool.run(&|_| {}))));
        assert!(caught.unwrap_err().downcast_ref::<&str>().unwrap().contains("inside"));
        pool.run(&|_| {});
    }
}

proptest! {
    #[test]
    fn shares_cover_all_items_once(items in 0..10_000usize, grain in 1..100usize, threads in 1..5usize) {
        let pool = Pool::new(threads);
        let mut next = 0;
        for worker in 0..threads {
            let share = pool.share(items, grain, worker);
            prop_assert_eq!(share.start, next);
            prop_assert!(share.end.is_multiple_of(grain) || share.end == items);
            next = share.end;
        }
        prop_assert_eq!(next, items);
    }
}
