//! Keys and values go to their pages; workers split the heads.

use half::bf16;

use crate::kernels::Heads;
use crate::kv::{KvElement, Plane};
use crate::{Fused, KvArena, KvDtype, PAGE_TOKENS, Pool, Ragged};

/// Elements below which a call stays on the calling thread.
const ALONE: usize = 1 << 15;

/// Writes the keys and values of `batch` into the pages of `layer`.
pub(super) fn kv_write(qkv: Fused<'_>, batch: &Ragged, (kv, layer): (&mut KvArena, usize), pool: &Pool) {
    match kv.layout().dtype {
        KvDtype::F32 => write::<f32>(qkv, batch, (kv, layer), pool),
        KvDtype::Bf16 => write::<bf16>(qkv, batch, (kv, layer), pool),
        KvDtype::Int8 => write::<i8>(qkv, batch, (kv, layer), pool),
    }
}

fn write<E: KvElement>(qkv: Fused<'_>, batch: &Ragged, (kv, layer): (&mut KvArena, usize), pool: &Pool) {
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
                // SAFETY: the planes are inside of the arena, which is borrowed for writing, and this head of these
                // pages is written by this worker alone.
                let (keys, values) =
                    unsafe { (arena.part::<E>(&keys, heads, head), arena.part(&values, heads, head)) };
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

/// What one head has of a plane.
struct Part<'a, E> {
    numbers: &'a mut [E],
    /// As many as tokens, or none.
    scales: &'a mut [f32],
}

/// Writes the keys and values of one head of `rows` into a page, from `token` on.
fn write_page<E: KvElement>(
    rows: &[f32],
    (heads, head): (Heads, usize),
    token: usize,
    (keys, values): (Part<'_, E>, Part<'_, E>),
) {
    let Heads { query, kv, dim } = heads;
    for (token, row) in (token..).zip(rows.chunks_exact(heads.fused())) {
        let key = &row[(query + head) * dim..][..dim];
        let inverse = step::<E>(key, token, keys.scales);
        for (line, &key) in keys.numbers.as_chunks_mut::<PAGE_TOKENS>().0.iter_mut().zip(key) {
            line[token] = E::hold(key, inverse);
        }
        let value = &row[(query + kv + head) * dim..][..dim];
        let inverse = step::<E>(value, token, values.scales);
        for (place, &value) in values.numbers[token * dim..][..dim].iter_mut().zip(value) {
            *place = E::hold(value, inverse);
        }
    }
}

/// One over the scale of a token's key or value, which is written down where there is a place for it.
fn step<E: KvElement>(row: &[f32], token: usize, scales: &mut [f32]) -> f32 {
    let Some(place) = scales.get_mut(token) else { return 1.0 };
    *place = E::scale(row);
    1.0 / *place
}

/// The first byte of an arena that workers write to in different places.
#[derive(Clone, Copy)]
struct Shared(*mut u8);

// SAFETY: the pointer is only a number; whoever writes through it states why nobody else touches the place.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    /// What a head has of a plane.
    ///
    /// # Safety
    /// The plane is one of the arena's, of these heads and this type, and nobody else has this head's part of it.
    unsafe fn part<'a, E: KvElement>(self, plane: &Plane, heads: Heads, head: usize) -> Part<'a, E> {
        let numbers = heads.dim * PAGE_TOKENS;
        let scales = if E::SCALED { PAGE_TOKENS } else { 0 };
        // SAFETY: the caller's; planes begin at multiples of four bytes, which all of these types are aligned to.
        unsafe {
            let first = self.0.add(plane.numbers.start).cast::<E>().add(head * numbers);
            let scale = self.0.add(plane.scales.start).cast::<f32>().add(head * scales);
            Part {
                numbers: std::slice::from_raw_parts_mut(first, numbers),
                scales: std::slice::from_raw_parts_mut(scale, scales),
            }
        }
    }
}
