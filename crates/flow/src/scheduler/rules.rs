//! How a scheduler decides, and what it is told of a piece of work besides its needs.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Balance;

/// How a scheduler decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// After each such time of waiting, work counts as one level more urgent.
    pub age_step: Duration,
    /// So long others may overtake the first in line without regard for it.
    pub patience: Duration,
    /// So many that do not fit are passed over in search of one that does.
    pub look_ahead: usize,
    /// How work is spread over devices.
    pub balance: Balance,
    /// From which the random choices of [`Balance::TwoChoices`] follow.
    pub seed: u64,
}

impl Default for Rules {
    /// Levels for a few seconds, overtaking for one, a search among 64, even spreading.
    fn default() -> Self {
        Self {
            age_step: Duration::from_secs(5),
            patience: Duration::from_secs(1),
            look_ahead: 64,
            balance: Balance::default(),
            seed: 0,
        }
    }
}

/// Whose work it is, how urgent, and until when it is of use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    pub(super) owner: Arc<str>,
    pub(super) level: u8,
    pub(super) deadline: Option<Instant>,
}

impl Terms {
    /// Work of that owner, of the most urgent level and without deadline.
    pub fn of(owner: &str) -> Self {
        Self { owner: owner.into(), level: 0, deadline: None }
    }

    /// How urgent it is: 0 goes first.
    pub fn level(self, level: u8) -> Self {
        Self { level, ..self }
    }

    /// From when on it is of no use: it does not start any more then, and stops if it runs.
    pub fn deadline(self, deadline: Instant) -> Self {
        Self { deadline: Some(deadline), ..self }
    }
}

impl Default for Terms {
    fn default() -> Self {
        Self::of("")
    }
}
