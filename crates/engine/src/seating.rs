//! Who runs and who waits: moving sequences between the line, the lobby and the batch.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::plan::{Head, Rank};
use crate::run_loop::RunLoop;
use crate::sequence::Sequence;

/// Where the sequence that runs next comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// It ran before, or its request has started.
    Lobby,
    /// It is the first of a request that waits.
    Line,
}

impl RunLoop {
    /// The lobby goes before the line, unless the line's head is more urgent.
    fn source(&mut self, now: Duration) -> Option<Source> {
        match (self.lobby.first(), self.line.head(now)) {
            (None, None) => None,
            (Some(sequence), Some(request)) if sequence.rank.band <= request.band() => Some(Source::Lobby),
            (Some(_), None) => Some(Source::Lobby),
            (_, Some(_)) => Some(Source::Line),
        }
    }

    /// What would run next.
    pub(crate) fn head(&mut self, now: Duration) -> Option<Head> {
        match self.source(now)? {
            Source::Lobby => {
                self.lobby.first().map(|sequence| sequence.head(sibling(&self.running, sequence.rank)))
            }
            Source::Line => self.line.head(now).map(|request| Head {
                band: request.band(),
                known: request.parameters.prompt.len(),
                lent_pages: 0,
            }),
        }
    }

    /// Lets the head run.
    pub(crate) fn start_next(&mut self, now: Duration) {
        if self.source(now) == Some(Source::Line)
            && let Some(mut request) = self.line.pop(now)
        {
            let meters = &self.shared.meters;
            meters.queue.observe(request.start(now));
            let rank = Rank { band: request.band(), order: request.order, choice: 0 };
            insert_by_rank(&mut self.running, Sequence::new(rank, request.parameters.clone()));
            self.requests.insert(request.order, request);
        } else if !self.lobby.is_empty() {
            let mut sequence = self.lobby.remove(0);
            if let Some(sibling) = sibling(&self.running, sequence.rank) {
                sequence.borrow_pages(sibling, &mut self.pages);
            }
            insert_by_rank(&mut self.running, sequence);
        }
    }

    /// Takes the pages of all running sequences from `index` on; they keep their tokens and their place.
    pub(crate) fn preempt_from(&mut self, index: usize) {
        for mut sequence in self.running.drain(index..).rev() {
            sequence.release(&mut self.pages);
            self.shared.meters.preemptions.fetch_add(1, Relaxed);
            insert_by_rank(&mut self.lobby, sequence);
        }
    }

    /// Lets the other choices of a request follow its first one, whose pages now hold their prompt.
    pub(crate) fn fork(&mut self, first: Rank) {
        let Some(request) = self.requests.get(&first.order) else { return };
        for choice in 1..request.parameters.choices {
            let sequence = Sequence::new(Rank { choice, ..first }, request.parameters.clone());
            insert_by_rank(&mut self.lobby, sequence);
        }
    }

    pub(crate) fn count_slots(&mut self) {
        self.slots.clear();
        self.slots.extend(self.running.iter().map(|sequence| sequence.slot(&self.pages)));
    }
}

/// The running continuation of the same request that has computed most.
fn sibling(running: &[Sequence], rank: Rank) -> Option<&Sequence> {
    let siblings = running.iter().filter(|other| other.rank.order == rank.order);
    siblings.max_by_key(|sibling| sibling.computed())
}

/// Inserts a sequence at its place by rank.
fn insert_by_rank(sequences: &mut Vec<Sequence>, sequence: Sequence) {
    let at = sequences.partition_point(|other| other.rank < sequence.rank);
    sequences.insert(at, sequence);
}
