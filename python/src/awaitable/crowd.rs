//! Many futures within one coroutine of ours: what they may not do, and how they let the event loop have its turn.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};

thread_local! {
    /// Whether what is being polled is one of many, of which no single one can have the task to itself.
    static IS_CROWDED: Cell<bool> = const { Cell::new(false) };
    /// Whether what was polled wants to go on in the event loop's next round.
    static GIVES_WAY: Cell<bool> = const { Cell::new(false) };
}

/// Whether a Python coroutine cannot run here, because the task that would run it runs others too.
pub(crate) fn is_crowded() -> bool {
    IS_CROWDED.get()
}

/// A future that polls many others.
pub(crate) struct Crowd<F>(pub(crate) Pin<Box<F>>);

impl<F: Future> Future for Crowd<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        /// Python functions that are called meanwhile may poll coroutines of their own.
        struct Before(bool);
        impl Drop for Before {
            fn drop(&mut self) {
                IS_CROWDED.set(self.0);
            }
        }
        let _before = Before(IS_CROWDED.replace(true));
        self.0.as_mut().poll(cx)
    }
}

/// Lets the event loop do something else before this goes on.
pub(crate) async fn give_way() {
    let mut has_given = false;
    poll_fn(|_| match std::mem::replace(&mut has_given, true) {
        true => Poll::Ready(()),
        false => {
            GIVES_WAY.set(true);
            Poll::Pending
        }
    })
    .await;
}

/// Whether what was just polled wants that.
pub(super) fn gives_way() -> bool {
    GIVES_WAY.replace(false)
}
