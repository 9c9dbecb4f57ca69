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

    /// Makes sure that the slot exists.
    pub(in crate::queue) fn reach(&mut self, place: Place) {
        while self.len() <= place.index() {
            self.chunks.push(std::iter::repeat_with(E::default).take(CHUNK).collect());
        }
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
