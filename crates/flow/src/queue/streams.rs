//! A queue as a stream of what is taken and as a sink for what is put.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::future::BoxFuture;
use futures::{Sink, Stream, stream};

use super::rejected::Rejected;
use super::{Lease, Queue, Ticket, TicketId};

impl<T: Send + 'static> Queue<T> {
    /// The items as a stream of leases, which ends when [`Queue::take`] would say that nothing can come any more.
    /// Dropped, it has taken nothing that it did not give.
    pub fn leases(&self) -> impl Stream<Item = Lease<T>> + Send + use<T> {
        stream::unfold(self.clone(), |queue| async move { queue.take().await.map(|lease| (lease, queue)) })
    }

    /// A sink that puts what it is given; see [`QueueSink`].
    pub fn sink(&self) -> QueueSink<T> {
        QueueSink { queue: self.clone(), putting: None }
    }
}

/// Puts the items that it is given, one after the other, as [`Queue::put`] does: it is ready when the queue has taken the
/// one before, so a full queue is felt at the source.
///
/// An item that the queue rejects is the error; the sink goes on with the next. Flush it before it is dropped, or the
/// last item may not have been taken. Closing the sink does not close the queue, which others may use.
#[must_use = "a sink does nothing unless items are sent into it"]
pub struct QueueSink<T> {
    queue: Queue<T>,
    putting: Option<BoxFuture<'static, Result<TicketId, Box<Rejected<T>>>>>,
}

impl<T: Send + 'static> Sink<(T, Ticket)> for QueueSink<T> {
    type Error = Box<Rejected<T>>;

    fn poll_ready(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Box<Rejected<T>>>> {
        self.poll_flush(cx)
    }

    fn start_send(mut self: Pin<&mut Self>, (item, ticket): (T, Ticket)) -> Result<(), Box<Rejected<T>>> {
        let queue = self.queue.clone();
        self.putting = Some(Box::pin(async move { queue.put(item, ticket).await }));
        Ok(())
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Box<Rejected<T>>>> {
        let Some(putting) = &mut self.putting else { return Poll::Ready(Ok(())) };
        let put = ready!(putting.as_mut().poll(cx));
        self.putting = None;
        Poll::Ready(put.map(drop))
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Box<Rejected<T>>>> {
        self.poll_flush(cx)
    }
}

impl<T> fmt::Debug for QueueSink<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueueSink").field("is_putting", &self.putting.is_some()).finish_non_exhaustive()
    }
}
