//! What the exchange takes from the standard library, named here so that a model checker can put its own in place.

pub(super) use std::sync::{Mutex, MutexGuard};
