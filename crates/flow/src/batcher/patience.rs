//! Waiting no longer than until a moment. A future that is ready at once costs no timer.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

use tokio::time::{Instant, Sleep, sleep_until};

/// The output of the future, or `None` if it was not ready by that moment.
///
/// It borrows the future, because one that is moved in would take its room twice.
pub(crate) async fn until<F: Future>(moment: Option<Instant>, mut future: Pin<&mut F>) -> Option<F::Output> {
    let mut timer: Option<Pin<Box<Sleep>>> = None;
    poll_fn(|cx| {
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            return Poll::Ready(Some(output));
        }
        let Some(moment) = moment else { return Poll::Pending };
        let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(moment)));
        timer.as_mut().poll(cx).map(|()| None)
    })
    .await
}
