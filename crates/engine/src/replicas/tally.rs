//! A request that moves is accepted by two replicas and leaves one of them: whoever asks hears of it once.

use std::collections::BTreeMap;

use protocol::status::Counters;

/// Where those are counted whose prompt was being read: no replica had accepted them.
const PREPARING: &str = "preparing";

/// How often requests have moved, and what has been told.
#[derive(Default)]
pub(super) struct Tally {
    moved: u64,
    withdrawn: u64,
    accepted: u64,
    /// By the stage in which they were cancelled.
    cancelled: BTreeMap<String, u64>,
}

impl Tally {
    /// A second replica has accepted a request: one of the two is going to lose it.
    pub(super) fn moved(&mut self) {
        self.moved += 1;
    }

    /// A second replica was asked, and hears that nobody wants to know before it has answered.
    pub(super) fn withdrawn(&mut self) {
        self.withdrawn += 1;
    }

    /// Takes the moves out of what all replicas have counted. Most requests leave a line, and that stage comes first; one
    /// that a replica starts in the very moment in which it leaves is found under a later stage. A replica may not have
    /// counted its part of a move yet, for which no figure falls.
    pub(super) fn correct(&mut self, counters: &mut Counters) {
        self.accepted = counters.accepted.saturating_sub(self.moved).max(self.accepted);
        counters.accepted = self.accepted;
        let (mut moved, mut withdrawn) = (self.moved, self.withdrawn);
        for (stage, count) in &mut counters.cancelled {
            let ours = if stage == PREPARING { &mut withdrawn } else { &mut moved };
            let taken = (*ours).min(*count);
            *ours -= taken;
            let told = self.cancelled.entry(stage.clone()).or_default();
            *told = (*count - taken).max(*told);
            *count = *told;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is told of so many accepted, and of those cancelled in preparation, in line and later.
    fn told(tally: &mut Tally, accepted: u64, cancelled: [u64; 3]) -> (u64, [u64; 3]) {
        let stages = [PREPARING, "queued", "prefill"].map(str::to_owned);
        let cancelled = stages.into_iter().zip(cancelled).collect();
        let mut counters = Counters { accepted, cancelled, ..Counters::default() };
        tally.correct(&mut counters);
        (counters.accepted, [0, 1, 2].map(|at| counters.cancelled[at].1))
    }

    #[test]
    fn a_move_is_taken_out_and_no_figure_falls_while_it_is_made() {
        let mut tally = Tally::default();
        assert_eq!(told(&mut tally, 3, [7, 1, 0]), (3, [7, 1, 0]));
        tally.moved();
        assert_eq!(told(&mut tally, 3, [7, 1, 0]), (3, [7, 1, 0]), "neither replica has counted it");
        assert_eq!(told(&mut tally, 4, [7, 1, 0]), (3, [7, 1, 0]));
        assert_eq!(told(&mut tally, 4, [7, 2, 0]), (3, [7, 1, 0]));
        assert_eq!(told(&mut tally, 5, [7, 3, 0]), (4, [7, 2, 0]));
    }

    #[test]
    fn who_is_started_while_it_leaves_is_taken_out_where_it_is_counted() {
        let mut tally = Tally::default();
        tally.moved();
        assert_eq!(told(&mut tally, 4, [0, 0, 1]), (3, [0, 0, 0]));
        tally.withdrawn();
        assert_eq!(told(&mut tally, 4, [1, 0, 1]), (3, [0, 0, 0]));
        assert_eq!(told(&mut tally, 4, [2, 0, 2]), (3, [1, 0, 1]));
    }
}
