//! Mistakes that a test can make the log make, to see that its checks would find them.

use std::cell::Cell;

thread_local! {
    /// Takes every checksum for right.
    pub(in crate::queue::store) static TRUSTS_EVERY_SUM: Cell<bool> = const { Cell::new(false) };
}
