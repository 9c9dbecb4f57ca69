//! What lanes do with a row between the two products of tiles.

use half::bf16;

use super::{LINE, Page};
use crate::PAGE_TOKENS;
use crate::cpu::lanes::Lanes;
use crate::cpu::math::power_of_two_for_bf16;

/// A row's products with the keys of a block, of which it sees the first `seen` tokens.
pub(super) struct Row<'a> {
    pub(super) pages: &'a [Page<'a>],
    pub(super) seen: usize,
    pub(super) scores: &'a mut [f32; LINE],
}

impl Row<'_> {
    /// Turns products into weights; returns the highest score and the sum of the weights. Whether the row sees `ALL` of the
    /// block changes no bit.
    #[inline(always)]
    pub(super) fn soften<L: Lanes, const ALL: bool>(self, l: L, scale: f32, before: f32) -> (f32, f32) {
        let mut highest = l.splat(f32::NEG_INFINITY);
        for (number, page) in self.pages.iter().enumerate() {
            for at in (0..PAGE_TOKENS).step_by(L::N) {
                let score = self.score(l, page, (number, at));
                highest = l.max(self.of_seen::<_, ALL>(l, score, (number, at), f32::NEG_INFINITY), highest);
            }
        }
        let highest = before.max(l.highest(highest) * scale);
        let (scale, below, mut sum) = (l.splat(scale), l.splat(-highest), l.splat(0.0));
        for (number, page) in self.pages.iter().enumerate() {
            for at in (0..PAGE_TOKENS).step_by(L::N) {
                let score = l.fma(self.score(l, page, (number, at)), scale, below);
                let power = power_of_two_for_bf16(l, score);
                let mut weight = self.of_seen::<_, ALL>(l, power, (number, at), 0.0);
                sum = l.add(sum, weight);
                if let Some((_, values)) = page.scales {
                    // The scale of a token that nobody has written may be no number.
                    let scaled = l.mul(weight, l.read(&values[at..]));
                    weight = self.of_seen::<_, ALL>(l, scaled, (number, at), 0.0);
                }
                let weights = self.scores.as_mut_ptr().cast::<bf16>();
                // SAFETY: there is a place for each token of a block, and a register's lanes divide those of a page.
                // Weights take half as much room as products, so none is written where a product has not been read.
                unsafe { l.store_bf16(weights.add(number * PAGE_TOKENS + at), weight) };
            }
        }
        (highest, l.sum(sum))
    }

    /// Products of some tokens, times the scales of their keys if they have some.
    #[inline(always)]
    fn score<L: Lanes>(&self, l: L, page: &Page<'_>, (number, at): (usize, usize)) -> L::F {
        // SAFETY: as above.
        let product = unsafe { l.load(self.scores.as_ptr().add(number * PAGE_TOKENS + at)) };
        match page.scales {
            Some((keys, _)) => l.mul(product, l.read(&keys[at..])),
            None => product,
        }
    }

    /// What belongs to tokens that the row sees, and `rest` for the others.
    #[inline(always)]
    fn of_seen<L: Lanes, const ALL: bool>(
        &self,
        l: L,
        value: L::F,
        (number, at): (usize, usize),
        rest: f32,
    ) -> L::F {
        if ALL {
            return value;
        }
        l.keep_first(self.seen.saturating_sub(number * PAGE_TOKENS + at), value, l.splat(rest))
    }
}
