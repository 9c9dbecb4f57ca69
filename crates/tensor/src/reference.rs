//! The meaning of every kernel: plain loops, one thread, no tricks.
