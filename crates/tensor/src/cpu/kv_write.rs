//! Keys and values go to their pages; workers split the heads.

use half::bf16;

use crate::kernels::Heads;
use crate::kv::Element;
use crate::{Dtype, Fused, KvArena, PAGE_TOKENS, Pool, Ragged};

/// Elements below which a call stays on the calling thread.
const ALONE: usize = 1 << 15;

/// Writes the keys and values of `batch` into the pages of `layer`.
pub(super) fn kv_write(qkv: Fused<'_>, batch: &Ragged, (kv, layer): (&mut KvArena, usize), pool: &Pool) {
    match kv.layout().dtype {
        Dtype::F32 => write::<f32>(qkv, batch, (kv, layer), pool),
        _ => write::<bf16>(qkv, batch, (kv, layer), pool),
    }
}

fn write<E: Element>(qkv: Fused<'_>, batch: &Ragged, (kv, layer): (&mut KvArena, usize), pool: &Pool) {
    let Fused { rows, heads } = qkv;
    let arena = Shared(kv.bytes_mut().as_mut_ptr());
    let planes = |page| kv.planes(page, layer);
    let one_head = |head: usize| {
        for span in &batch.spans {
            let end = span.context + span.rows;
            let mut position = span.context;
            while position < end {
                let page = batch.pages[span.pages.start + position / PAGE_TOKENS];
                let token = position % PAGE_TOKENS;
                let tokens = (PAGE_TOKENS - token).min(end - position);
                let first_row = span.first_row + position - span.context;
                let rows = &rows[first_row * heads.fused()..(first_row + tokens) * heads.fused()];
                let (keys, values) = planes(page);
                let plane = heads.dim * PAGE_TOKENS;
                // SAFETY: the planes are inside of the arena, which is borrowed for writing, and hold one run of
                // `plane` elements per head; this head is written by this worker alone.
                let (keys, values) = unsafe {
                    let of = |bytes: usize| {
                        std::slice::from_raw_parts_mut(arena.at(bytes).cast::<E>().add(head * plane), plane)
                    };
                    (of(keys.start), of(values.start))
                };
                write_page(rows, (heads, head), token, (keys, values));
                position += tokens;
            }
        }
    };
    if batch.rows() * heads.kv * heads.dim < ALONE {
        return (0..heads.kv).for_each(one_head);
    }
    pool.run(&|worker| pool.share(heads.kv, 1, worker).for_each(one_head));
}

/// Writes the keys and values of one head of `rows` into a page, from `token` on.
fn write_page<E: Element>(
    rows: &[f32],
    (heads, head): (Heads, usize),
    token: usize,
    (keys, values): (&mut [E], &mut [E]),
) {
    let Heads { query, kv, dim } = heads;
    for (token, row) in (token..).zip(rows.chunks_exact(heads.fused())) {
        let key = &row[(query + head) * dim..][..dim];
        for (line, &key) in keys.as_chunks_mut::<PAGE_TOKENS>().0.iter_mut().zip(key) {
            line[token] = E::narrow(key);
        }
        let value = &row[(query + kv + head) * dim..][..dim];
        for (place, &value) in values[token * dim..][..dim].iter_mut().zip(value) {
            *place = E::narrow(value);
        }
    }
}

/// The first byte of an arena that workers write to in different places.
#[derive(Clone, Copy)]
struct Shared(*mut u8);

// SAFETY: the pointer is only a number; whoever writes through it states why nobody else touches the place.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    /// # Safety
    /// The arena has that many bytes.
    unsafe fn at(self, bytes: usize) -> *mut u8 {
        // SAFETY: the caller's.
        unsafe { self.0.add(bytes) }
    }
}
