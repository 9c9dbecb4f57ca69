//! Hears what a process said before it was killed, and says whether that and what it found again go together.

use std::collections::BTreeSet;

/// What is known of all items from the words of all lives so far. Items are named by a number of their own.
#[derive(Default)]
pub(crate) struct Witness {
    /// Puts that began and of which nobody heard more.
    begun: BTreeSet<u64>,
    /// Items that were accepted and are not done.
    accepted: BTreeSet<u64>,
    /// Items among them whose acknowledgement began.
    leaving: BTreeSet<u64>,
    /// Items that are done.
    done: BTreeSet<u64>,
    /// What a new life found.
    recovered: BTreeSet<u64>,
    ready: u64,
    ever_accepted: usize,
}

impl Witness {
    /// Takes in a line.
    ///
    /// # Panics
    /// If it contradicts what was said before.
    pub(crate) fn hear(&mut self, line: &str) {
        let (word, number) = line.split_once(' ').unwrap_or((line, ""));
        let item = || number.parse::<u64>().unwrap();
        match word {
            "found" => assert!(self.recovered.insert(item()), "{line} twice"),
            "ready" => self.compare(),
            "putting" => drop(self.begun.insert(item())),
            "put" => {
                self.ever_accepted += 1;
                // A consumer may have been faster with it than its producer was with the word.
                if !self.done.contains(&item()) {
                    assert!(self.begun.remove(&item()), "{line} out of nowhere");
                    self.accepted.insert(item());
                }
            }
            "taken" => {
                assert!(!self.done.contains(&item()), "{line}, which was acknowledged before");
            }
            "acking" => drop(self.leaving.insert(item())),
            "acked" => {
                self.leaving.remove(&item());
                self.begun.remove(&item());
                self.accepted.remove(&item());
                self.done.insert(item());
            }
            _ => panic!("{line}"),
        }
    }

    /// The process is dead.
    pub(crate) fn next_life(&mut self) {
        self.recovered.clear();
    }

    pub(crate) fn accepted(&self) -> usize {
        self.ever_accepted
    }

    pub(crate) fn done(&self) -> usize {
        self.done.len()
    }

    /// What was found is what was accepted and not acknowledged; of what was on its way either may be.
    fn compare(&mut self) {
        self.ready += 1;
        let found = std::mem::take(&mut self.recovered);
        for item in self.accepted.difference(&self.leaving) {
            assert!(found.contains(item), "{item} was accepted and is lost");
        }
        for item in &found {
            let is_known = self.accepted.contains(item) || self.begun.contains(item);
            assert!(is_known, "{item} came back from the dead or from nowhere");
        }
        self.done.extend(self.accepted.difference(&found));
        self.accepted = found;
        self.begun.clear();
        self.leaving.clear();
    }
}

impl std::fmt::Debug for Witness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (waiting, done) = (self.accepted.len(), self.done.len());
        write!(f, "{} lives, {} accepted, {done} done, {waiting} waiting", self.ready, self.ever_accepted)
    }
}
