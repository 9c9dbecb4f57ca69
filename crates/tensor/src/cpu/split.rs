//! Splitting work over the workers of a pool.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::Pool;

/// A pointer that workers may share because each writes elements that no other touches.
#[derive(Clone, Copy)]
pub(super) struct Disjoint(*mut f32);

// SAFETY: the pointer is only a number; whoever writes through it states why nobody else touches the element.
unsafe impl Send for Disjoint {}
// SAFETY: as above.
unsafe impl Sync for Disjoint {}

impl Disjoint {
    pub(super) fn new(out: &mut [f32]) -> Self {
        Self(out.as_mut_ptr())
    }

    /// A part of the elements, for writing.
    ///
    /// # Safety
    /// The part is inside of the slice that the pointer was made of, which is still borrowed, and nobody else touches
    /// these elements while the part lives.
    pub(super) unsafe fn part<'a>(self, first: usize, count: usize) -> &'a mut [f32] {
        // SAFETY: the caller's.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(first), count) }
    }
}

/// Cuts `out` into rows of `width` and gives every worker a run of rows: `work(rows, their elements)`. A call with less
/// than `alone` elements stays on the calling thread, because waking a worker costs more than the work.
pub(super) fn rows(
    pool: &Pool,
    out: &mut [f32],
    (width, alone): (usize, usize),
    work: impl Fn(Range<usize>, &mut [f32]) + Sync,
) {
    let count = out.len() / width;
    if out.len() < alone || pool.threads() == 1 || count == 1 {
        return work(0..count, out);
    }
    let shared = Disjoint::new(out);
    pool.run(&|worker| {
        let rows = pool.share(count, 1, worker);
        // SAFETY: the shares of the workers are disjoint parts of `0..count`, so these are disjoint parts of `out`,
        // which stays borrowed until `run` returns.
        let part = unsafe { shared.part(rows.start * width, rows.len() * width) };
        work(rows, part);
    });
}

/// Items of work that workers take as they get on, so that one that the operating system holds up does not hold up
/// the rest. Items must be independent: results may not depend on who takes which. Every item is claimed once.
///
/// A worker takes a run of neighbours, half of its even share of what is left: long runs at first, because neighbours
/// write to the same cache lines, and single items at the end, so that all workers end together.
pub(super) struct Claims {
    next: AtomicUsize,
    end: usize,
    workers: usize,
}

impl Claims {
    /// Items for as many workers, each of which iterates over [`Claims::claim`].
    pub(super) fn new(items: Range<usize>, workers: usize) -> Self {
        Self { next: AtomicUsize::new(items.start), end: items.end, workers }
    }

    /// The items of one worker, claimed as it goes.
    pub(super) fn claim(&self) -> impl Iterator<Item = usize> {
        self.claim_runs().flatten()
    }

    /// The same, neighbours together.
    pub(super) fn claim_runs(&self) -> impl Iterator<Item = Range<usize>> {
        std::iter::from_fn(|| self.claim_run())
    }

    fn claim_run(&self) -> Option<Range<usize>> {
        let run = |first: usize| (self.end - first).div_ceil(2 * self.workers);
        // Only the number matters: what the items are was written before the workers were woken.
        let claimed = self.next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |first| {
            (first < self.end).then(|| first + run(first))
        });
        claimed.ok().map(|first| first..first + run(first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_claimed_once() {
        for (items, workers) in [(0..0, 1), (0..1, 2), (0..7, 1), (5..100, 3), (20..1000, 2)] {
            let claims = Claims::new(items.clone(), workers);
            let mut claimed: Vec<usize> = std::thread::scope(|scope| {
                let workers: Vec<_> =
                    (0..workers).map(|_| scope.spawn(|| claims.claim().collect::<Vec<_>>())).collect();
                workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
            });
            claimed.sort_unstable();
            assert_eq!(claimed, items.collect::<Vec<_>>());
        }
    }
}
