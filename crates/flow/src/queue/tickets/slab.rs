//! Numbered slots in chunks: growing moves nothing, and unused room is at most one chunk.

use super::Place;

const CHUNK: usize = 64;

/// Values by [`Place`].
pub(in crate::queue) struct Slab<E> {
    chunks: Vec<Box<[E]>>,
}

impl<E> Default for Slab<E> {
    fn default() -> Self {
        Self { chunks: Vec::new() }
    }
}

impl<E: Default> Slab<E> {
    /// Number of slots.
    pub(in crate::queue) fn len(&self) -> usize {
        self.chunks.len() * CHUNK
    }

    /// Sets what a slot holds; the slot may be one beyond those that exist.
    #[inline]
    pub(in crate::queue) fn put(&mut self, place: Place, value: E) {
        let (chunk, slot) = (place.index() / CHUNK, place.index() % CHUNK);
        if chunk == self.chunks.len() {
            self.chunks.push(std::iter::repeat_with(E::default).take(CHUNK).collect());
        }
        self.chunks[chunk][slot] = value;
    }

    /// Gives up all slots.
    pub(in crate::queue) fn clear(&mut self) {
        self.chunks = Vec::new();
    }

    #[inline]
    pub(in crate::queue) fn at(&self, place: Place) -> &E {
        &self.chunks[place.index() / CHUNK][place.index() % CHUNK]
    }

    #[inline]
    pub(in crate::queue) fn at_mut(&mut self, place: Place) -> &mut E {
        &mut self.chunks[place.index() / CHUNK][place.index() % CHUNK]
    }
}
