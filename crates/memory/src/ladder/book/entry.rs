//! One object, and how far it is on its way.

use std::sync::Arc;

use super::{Place, Raised, Stay};
use crate::rung::{Blob, Stop};
use crate::slot::Slot;

pub(super) struct Entry {
    /// Its length, or that rounded up if it was found below.
    pub(super) bytes: usize,
    pub(super) host: Option<Arc<Blob>>,
    pub(super) below: Below,
    pub(super) stay: Stay,
    pub(super) cost: f64,
    pub(super) pins: u32,
    /// When it was used last, counted in uses.
    pub(super) used: u64,
    pub(super) rising: Option<Rising>,
    /// The attempt in which the rung below refused it last.
    pub(super) refused: u64,
    /// Bytes of what is below, or on its way there, or away: after a removal that may be another object than in memory.
    pub(super) bytes_below: usize,
    /// It was removed while something was done with it below, which has to go when that is done.
    pub(super) doomed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Below {
    Absent,
    Coming,
    Present,
    Leaving,
}

/// An object on its way up.
pub(super) struct Rising {
    pub(super) place: Place,
    pub(super) stage: Stage,
    pub(super) stop: Stop,
    pub(super) waiting: Vec<Arc<Slot<Raised>>>,
    /// Whether it was wanted before anybody waited for it.
    pub(super) ahead: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Hungry,
    Queued,
    Running,
}

impl Entry {
    /// Whether it can be had.
    pub(super) fn is_there(&self) -> bool {
        self.host.is_some() || self.below == Below::Present
    }

    /// Whether it may leave memory, as far as its users go.
    pub(super) fn is_free(&self) -> bool {
        self.pins == 0 && self.host.as_ref().is_some_and(|blob| Arc::strong_count(blob) == 1)
    }
}
