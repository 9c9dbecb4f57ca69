//! What goes first when there is no room: policies that are pure, told what happens, and asked for a victim.
//!
//! One file each in the folder beside this one, and one line each in [`POLICIES`]. A user's own policy is any
//! [`Eviction`], wrapped in a [`PolicyChoice::Own`].

mod cost;
mod lfu;
mod lirs;
mod lru;
mod once;
mod presence;
#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::Key;

/// What a policy may know of an object.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Facts {
    /// What it takes.
    pub bytes: usize,
    /// What it would cost to have it again once it has gone, in seconds.
    pub cost: f64,
}

/// Decides what goes first.
///
/// For the implementer: every key is inserted before it is touched or removed, and once until it is removed. There is no
/// clock; what happens is told in the order in which it happens. The same calls give the same answers.
pub trait Eviction: Send {
    /// An object has come.
    fn insert(&mut self, key: Key, facts: Facts);

    /// An object was used.
    fn touch(&mut self, key: Key);

    /// An object has gone.
    fn remove(&mut self, key: Key);

    /// The object to go first, among those that `may` go. It stays until it is [removed](Eviction::remove).
    fn victim(&mut self, may: &mut dyn FnMut(Key) -> bool) -> Option<Key>;
}

/// A policy that comes with this crate.
#[derive(Clone, Copy)]
pub struct Policy {
    /// The name by which it is chosen.
    pub name: &'static str,
    /// What it is for, in one line.
    pub about: &'static str,
    make: fn() -> Box<dyn Eviction>,
}

impl Policy {
    /// What keys and values are kept by, unless something else is said: conversations that come back in turns are rounds.
    pub const OF_PAGES: Self = lirs::POLICY;
}

/// The policies that come with this crate.
pub const POLICIES: &[Policy] =
    &[lru::POLICY, lfu::POLICY, lirs::POLICY, cost::POLICY, presence::POLICY, once::POLICY];

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Policy").field(&self.name).finish()
    }
}

/// No policy has that name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no eviction policy '{name}'; give {}", POLICIES.iter().map(|policy| policy.name).collect::<Vec<_>>().join(" or "))]
pub struct UnknownPolicy {
    /// The name.
    pub name: String,
}

impl FromStr for Policy {
    type Err = UnknownPolicy;

    fn from_str(name: &str) -> Result<Self, UnknownPolicy> {
        let known = POLICIES.iter().find(|policy| policy.name == name).copied();
        known.ok_or_else(|| UnknownPolicy { name: name.to_owned() })
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl PartialEq for Policy {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

/// Which policy decides.
#[derive(Clone)]
pub enum PolicyChoice {
    /// One of [`POLICIES`].
    Known(Policy),
    /// One of the user's own; called once for each rung.
    Own(Arc<dyn Fn() -> Box<dyn Eviction> + Send + Sync>),
}

impl PolicyChoice {
    /// A policy that has seen nothing yet.
    pub fn make(&self) -> Box<dyn Eviction> {
        match self {
            Self::Known(policy) => (policy.make)(),
            Self::Own(make) => make(),
        }
    }

    /// What has been used goes first: for rounds through more than fits.
    pub(crate) fn once() -> Self {
        Self::Known(once::POLICY)
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Known(policy) => policy.name,
            Self::Own(_) => "own",
        }
    }
}

impl Default for PolicyChoice {
    /// Least recently used.
    fn default() -> Self {
        Self::Known(lru::POLICY)
    }
}

impl fmt::Debug for PolicyChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PolicyChoice").field(&self.name()).finish()
    }
}
