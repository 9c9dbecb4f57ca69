//! Many random requests with random cancellation.
