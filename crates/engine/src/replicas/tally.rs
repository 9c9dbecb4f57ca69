//! A request that moves is accepted by two replicas and leaves the line of one: whoever asks hears of it once.

use protocol::status::Counters;

/// Where those are counted that leave a replica's line.
const LEFT: &str = "queued";

/// How often requests have moved, and what has been told.
#[derive(Default)]
pub(super) struct Tally {
    moved: u64,
    accepted: u64,
    left: u64,
}

impl Tally {
    /// A request has got to another replica.
    pub(super) fn moved(&mut self) {
        self.moved += 1;
    }

    /// Takes the moves out of what all replicas have counted. One of the two may not have counted its part of a move yet,
    /// for which no figure falls.
    pub(super) fn correct(&mut self, counters: &mut Counters) {
        let once = |counted: u64, told: &mut u64| {
            *told = counted.saturating_sub(self.moved).max(*told);
            *told
        };
        counters.accepted = once(counters.accepted, &mut self.accepted);
        let left = counters.cancelled.iter_mut().filter(|(stage, _)| stage == LEFT);
        left.for_each(|(_, left)| *left = once(*left, &mut self.left));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(tally: &mut Tally, accepted: u64, queued: u64) -> (u64, u64) {
        let cancelled = vec![("preparing".to_owned(), 7), (LEFT.to_owned(), queued)];
        let mut counters = Counters { accepted, cancelled, ..Counters::default() };
        tally.correct(&mut counters);
        assert_eq!(counters.cancelled[0].1, 7);
        (counters.accepted, counters.cancelled[1].1)
    }

    #[test]
    fn a_move_is_taken_out_and_no_figure_falls_while_it_is_made() {
        let mut tally = Tally::default();
        assert_eq!(told(&mut tally, 3, 1), (3, 1));
        tally.moved();
        assert_eq!(told(&mut tally, 3, 1), (3, 1), "neither replica has counted it");
        assert_eq!(told(&mut tally, 4, 1), (3, 1));
        assert_eq!(told(&mut tally, 4, 2), (3, 1));
        assert_eq!(told(&mut tally, 5, 3), (4, 2));
    }
}
