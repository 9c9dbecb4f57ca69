//! A round of the pool takes no memory, neither in the caller nor in a worker.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use tensor::Pool;

/// The system's allocator with a count of what is asked of it.
struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

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
