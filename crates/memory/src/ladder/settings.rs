//! What a ladder is told when it is opened.

use crate::replay::Recorder;
use crate::{PolicyChoice, Residency};

/// How a ladder works.
#[derive(Clone, Debug)]
pub struct LadderSettings {
    /// Bytes of objects in memory, those that somebody holds and those in transfer included.
    pub host_bytes: usize,
    /// Objects in memory, beside those that somebody holds and those that are on their way down.
    pub host_items: usize,
    /// Bytes of objects on the rung below.
    pub below_bytes: usize,
    /// When room is made before it is needed.
    pub watermarks: Watermarks,
    /// When objects are written down.
    pub writing: Writing,
    /// What goes first.
    pub policy: PolicyChoice,
    /// Whether objects in memory may be swapped out by the system.
    pub residency: Residency,
    /// What becomes of what the rung below holds when the ladder is opened.
    pub leftovers: Leftovers,
    /// Threads that transfer; at least one.
    pub threads: usize,
    /// Objects that are written down together.
    pub batch: usize,
    /// Takes down what is put and asked for, to be [replayed](crate::replay).
    pub recorder: Option<Recorder>,
}

impl Default for LadderSettings {
    fn default() -> Self {
        Self {
            host_bytes: 256 << 20,
            host_items: usize::MAX,
            below_bytes: 4 << 30,
            watermarks: Watermarks::default(),
            writing: Writing::default(),
            policy: PolicyChoice::default(),
            residency: Residency::default(),
            leftovers: Leftovers::default(),
            threads: 2,
            batch: 8,
            recorder: None,
        }
    }
}

/// Shares of a rung's budget.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Watermarks {
    /// Above this, room begins to be made.
    pub high: f64,
    /// Until no more than this could not be had at once.
    pub low: f64,
}

impl Default for Watermarks {
    fn default() -> Self {
        Self { high: 0.8, low: 0.6 }
    }
}

/// When objects are written down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Writing {
    /// When room is needed or soon will be.
    #[default]
    Back,
    /// As soon as they are put.
    Through,
}

/// What becomes of what the rung below holds when the ladder is opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Leftovers {
    /// It is removed.
    #[default]
    Remove,
    /// It is there, for as long as there is room.
    Keep,
}

/// Whether an object may go for want of room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stay {
    /// It may: it can be had again in another way.
    WhileRoom,
    /// It may not.
    #[default]
    Always,
}

/// What is transferred first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Somebody waits for it.
    Demand,
    /// Somebody will need it.
    Prefetch,
    /// It makes room ahead of time.
    Background,
}
