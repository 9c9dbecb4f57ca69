//! A request body that is read to its end even when nobody wants it any more.
//!
//! When a request is answered before its body has arrived (too large, wrong key, unknown route), closing the
//! connection at once makes the kernel reset it, and the reset can overtake the answer: the client sees a broken
//! connection where it should see a 413. So what is left of a dropped body is read and thrown away, for a bounded
//! number of bytes and a bounded time.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::header::EXPECT;
use futures::StreamExt;
use http_body::{Frame, SizeHint};
use tokio::runtime::Handle;
use tokio::time::timeout;

use crate::app::App;

/// A client that still sends after this much is cut off.
const MOST_BYTES: usize = 64 << 20;
const LONGEST: Duration = Duration::from_secs(5);

/// Puts a lingering body in the place of the request's own, and counts its bytes.
pub(crate) fn linger(request: Request, app: &Arc<App>) -> Request {
    // A client that waits for "100 Continue" has sent nothing yet, and reading would invite it to.
    let waits = request.headers().contains_key(EXPECT);
    let app = Arc::clone(app);
    request.map(|body| {
        let body = if waits { Unread::Waiting(body) } else { Unread::Coming(body) };
        Body::new(Lingering { body, app })
    })
}

struct Lingering {
    body: Unread,
    app: Arc<App>,
}

enum Unread {
    /// The client sends it whether or not it is read.
    Coming(Body),
    /// The client sends it once the first read asks for it.
    Waiting(Body),
    /// It was read to its end, or broke off.
    Nothing,
}

impl HttpBody for Lingering {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.body = match std::mem::replace(&mut self.body, Unread::Nothing) {
            Unread::Waiting(body) => Unread::Coming(body),
            other => other,
        };
        let Unread::Coming(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = std::task::ready!(Pin::new(body).poll_frame(context));
        match &frame {
            Some(Ok(frame)) => self.app.metrics.received(frame.data_ref().map_or(0, Bytes::len)),
            Some(Err(_)) | None => self.body = Unread::Nothing,
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.body {
            Unread::Coming(body) | Unread::Waiting(body) => body.is_end_stream(),
            Unread::Nothing => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.body {
            Unread::Coming(body) | Unread::Waiting(body) => body.size_hint(),
            Unread::Nothing => SizeHint::with_exact(0),
        }
    }
}

impl Drop for Lingering {
    fn drop(&mut self) {
        let Unread::Coming(body) = std::mem::replace(&mut self.body, Unread::Nothing) else { return };
        if body.is_end_stream() {
            return;
        }
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(timeout(LONGEST, discard(body)));
        }
    }
}

async fn discard(body: Body) {
    let mut stream = body.into_data_stream();
    let mut left = MOST_BYTES;
    while let Some(Ok(frame)) = stream.next().await {
        left = left.saturating_sub(frame.len());
        if left == 0 {
            return;
        }
    }
}
