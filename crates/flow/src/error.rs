//! What can go wrong when parts of a flow are chosen.

use crate::queue::policy::POLICIES;

/// What can go wrong when parts of a flow are chosen. A queue that does not take an item says so by
/// [`crate::Refused`], which carries the item.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FlowError {
    /// No queue policy is called so.
    #[error("there is no queue policy '{found}'; choose one of {}", POLICIES.map(|policy| policy.name).join(", "))]
    UnknownPolicy {
        /// The name that was given.
        found: String,
    },
    /// No stage of the pipeline is called so.
    #[error("there is no stage '{found}'; the pipeline has {}", known.join(", "))]
    UnknownStage {
        /// The name that was given.
        found: String,
        /// The names there are.
        known: Vec<String>,
    },
}
