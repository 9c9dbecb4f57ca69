//! A round of the pool takes no memory, neither in the caller nor in a worker.

mod counting;

use std::sync::atomic::{AtomicUsize, Ordering};

use counting::ALLOCATIONS;
use tensor::Pool;

#[test]
fn rounds_take_no_memory() {
    let pool = Pool::new(3);
    let done = AtomicUsize::new(0);
    let rounds = |count: usize| {
        for _ in 0..count {
            pool.run(&|_| {
                done.fetch_add(1, Ordering::Relaxed);
            });
        }
    };
    // The first rounds set up what the standard library keeps for each thread.
    rounds(10);
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    rounds(1000);
    // The test harness's own thread may print or time something meanwhile; a round that allocates would do it 1000 times.
    let taken = ALLOCATIONS.load(Ordering::Relaxed) - before;
    assert!(taken < 100, "{taken} allocations in 1000 rounds");
    assert_eq!(done.load(Ordering::Relaxed), 3030);
}
