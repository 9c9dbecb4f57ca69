//! The seam between the exchange and what is exchanged.

use super::moment::Moment;

/// What lies between putters and takers. It is synchronous and told the time.
pub(super) trait Stock {
    /// What a putter brings, and where its answer is left.
    type Offer;
    /// What a taker asks for, and where it gets it.
    type Want;
    /// What is left to do outside of the lock; dropping it does it.
    type Aftermath;

    /// It is `now`; what was due happens.
    fn advance(&mut self, now: Moment);

    /// Takes in as much of the offer as there is room for.
    fn accept(&mut self, offer: &mut Self::Offer) -> Progress;

    /// Answers an offer that will not wait although others wait before it.
    fn turn_away(&mut self, offer: &mut Self::Offer);

    /// The owner of an offer that had to wait went away, perhaps before it learned the answer that is in it. What
    /// comes back is dropped outside of the lock.
    fn abandon(&mut self, offer: Self::Offer) -> Option<Self::Offer>;

    /// Hands out what there is, up to what is asked for. Whether that is all the taker will get: not while there is
    /// nothing for it and something may come. It never refuses while [`Stock::on_hand`] is above zero.
    fn fill(&mut self, want: &mut Self::Want) -> bool;

    /// How many items that taker would like.
    fn appetite(want: &Self::Want) -> u32;

    /// How many items may be taken now; without end when all takers must learn that nothing will come.
    fn on_hand(&self) -> u64;

    /// When something falls due, at the earliest.
    fn due(&self) -> Moment;

    /// Whether what happens depends on what time it is exactly.
    fn is_exact(&self) -> bool;

    /// Whether anything has come up that must not be done under the lock.
    fn has_aftermath(&self) -> bool;

    /// What has come up since the last call and must not be done under the lock.
    fn aftermath(&mut self) -> Option<Self::Aftermath>;
}

/// How far an offer has come.
pub(super) enum Progress {
    /// The answer is in it.
    Finished,
    /// It waits for room, and so does everyone behind it.
    Blocked,
    /// It alone has to wait until then, at least.
    Later(Moment),
}
