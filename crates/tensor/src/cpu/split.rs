//! Splitting an output over the workers of a pool.

use std::ops::Range;

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
