//! A prompt with pictures, as sequences and the prefix cache see it.

use models::vision::Layout;

use super::Picture;

/// Tokens of a picture that hold enough of its hash for the page that they are in to be told by it.
const TELLING: usize = 4;

/// A prompt with pictures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct View {
    /// Where its pictures and its tokens stand.
    pub(crate) layout: Layout,
    /// What its tokens are for the prefix cache: ids of the text, and words of their hashes for those of pictures. No id is
    /// as large as a word, and four words hold 124 bits of a digest that nobody can choose.
    pub(crate) keys: Vec<u32>,
    /// Tokens behind which nothing is shared: a picture of very few tokens would be told by too few bits.
    pub(crate) shareable: usize,
}

impl View {
    /// Of a prompt whose pictures are these, in order.
    pub(crate) fn new(layout: Layout, pictures: &[Picture]) -> Self {
        let mut keys = layout.ids.clone();
        let mut shareable = usize::MAX;
        for (placed, picture) in layout.pictures.iter().zip(pictures) {
            let words =
                picture.hash.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word) | 1 << 31);
            for (key, word) in keys[placed.tokens.clone()].iter_mut().zip(words.cycle()) {
                *key = word;
            }
            if placed.tokens.len() < TELLING {
                shareable = shareable.min(placed.tokens.start);
            }
        }
        Self { layout, keys, shareable }
    }
}
