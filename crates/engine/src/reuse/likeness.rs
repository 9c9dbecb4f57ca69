//! How alike two texts are, by a hash that is alike for texts that are.

use crate::sampler::mix;

/// A similarity hash (Charikar, "Similarity Estimation Techniques from Rounding Algorithms", 2002) over words and pairs
/// of neighbouring words, without case and punctuation. Texts without words have none, and are like nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Likeness(Option<u64>);

impl Likeness {
    pub(super) fn of<'a>(texts: impl IntoIterator<Item = &'a str>) -> Self {
        let mut votes = [0_i64; 64];
        let mut last = None;
        let separated = |c: char| !c.is_alphanumeric();
        for word in texts.into_iter().flat_map(|text| text.split(separated)).filter(|word| !word.is_empty()) {
            let word = word.chars().flat_map(char::to_lowercase).fold(0, |hash, c| mix(hash ^ u64::from(c)));
            vote(&mut votes, word);
            if let Some(before) = last.replace(word) {
                vote(&mut votes, mix(mix(before) ^ word));
            }
        }
        last.map_or(Self(None), |_| {
            let bits = votes.iter().enumerate().filter(|(_, votes)| **votes > 0);
            Self(Some(bits.fold(0, |hash, (bit, _)| hash | 1 << bit)))
        })
    }

    /// The share of bits that agree: 1 for the same words in the same order, about one half for strangers.
    pub(super) fn to(self, other: Self) -> f32 {
        match (self.0, other.0) {
            (Some(one), Some(other)) => 1.0 - (one ^ other).count_ones() as f32 / 64.0,
            _ => 0.0,
        }
    }
}

fn vote(votes: &mut [i64; 64], hash: u64) {
    for (bit, votes) in votes.iter_mut().enumerate() {
        *votes += if hash >> bit & 1 == 1 { 1 } else { -1 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn likeness(one: &str, other: &str) -> f32 {
        Likeness::of([one]).to(Likeness::of([other]))
    }

    #[test]
    fn texts_that_differ_little_are_alike_and_strangers_are_not() {
        let long = "The quick brown fox jumps over the lazy dog while the moon rises over the quiet harbour and the \
            last boat of the evening comes home with the tide";
        assert_eq!(likeness(long, &long.to_uppercase().replace(' ', ", ")), 1.0);
        assert!(likeness(long, &long.replace("lazy", "sleepy")) > 0.85);
        let stranger = "Quarterly revenue grew by nine percent, driven by strong demand for industrial sensors in northern markets";
        assert!(likeness(long, stranger) < 0.75);
        assert_eq!(likeness("", ""), 0.0);
    }
}
