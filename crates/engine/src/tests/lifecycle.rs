//! Cancelling, deadlines, draining, stopping, failing.
