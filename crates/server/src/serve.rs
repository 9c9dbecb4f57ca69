//! The life of the listening socket: accept, serve, drain, leave.

mod patience;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use protocol::Inference;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

use crate::app::{App, Stage};
use crate::{Settings, endpoints};
use patience::Patient;

/// How a server ended after it was asked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Everything that had been accepted was finished and sent.
    Drained,
    /// Time ran out, and what still ran was cancelled.
    TimedOut {
        /// Connections on which a request was unfinished.
        connections: usize,
    },
}

/// Serves `inference` on `listener` until `shutdown` resolves and the drain that follows has ended.
///
/// During the drain connections are still accepted, so that probes see `/readyz` fail and clients hear a 503 instead
/// of a refused connection; new work is refused and accepted work goes on. When all of it has ended, or a little
/// before [`crate::Timeouts::shutdown`] has passed, streams that still run are ended with an error event and
/// connections are closed. To force an end earlier, drop the future.
pub async fn serve(
    listener: TcpListener,
    inference: Arc<dyn Inference>,
    settings: Settings,
    shutdown: impl Future<Output = ()>,
) -> Ending {
    let app = Arc::new(App::new(inference, settings));
    let mut house = House::new(&app);
    let ended = {
        let mut ending = pin!(end_after(shutdown, &app));
        loop {
            tokio::select! {
                biased;
                ended = &mut ending => break ended,
                () = house.welcome(&listener) => {}
            }
        }
    };
    drop(listener);
    house.leave(ended).await
}

/// When the drain is over, and by when everything must be.
struct Ended {
    deadline: Instant,
    /// Requests that were unfinished when the time for the drain was over.
    unfinished: usize,
}

async fn end_after(shutdown: impl Future<Output = ()>, app: &App) -> Ended {
    shutdown.await;
    let allowed = app.settings.timeouts.shutdown;
    let deadline = Instant::now() + allowed;
    app.stage.send_replace(Stage::Draining);
    // What is left of the time lets streams that did not finish tell their clients so.
    let farewell = (allowed / 10).min(Duration::from_secs(1));
    let in_time = timeout_at(deadline - farewell, app.inference.drain()).await.is_ok();
    let unfinished = if in_time { 0 } else { app.metrics.in_flight() };
    if !in_time {
        app.stage.send_replace(Stage::Leaving);
    }
    Ended { deadline, unfinished }
}

/// The open connections.
struct House {
    app: Arc<App>,
    router: axum::Router,
    room: Arc<Semaphore>,
    connections: JoinSet<()>,
    closing: watch::Sender<bool>,
}

impl House {
    fn new(app: &Arc<App>) -> Self {
        Self {
            app: Arc::clone(app),
            router: endpoints::router(Arc::clone(app)),
            room: Arc::new(Semaphore::new(app.settings.connections)),
            connections: JoinSet::new(),
            closing: watch::Sender::new(false),
        }
    }

    /// Waits for room and for a guest, and lets it in.
    async fn welcome(&mut self, listener: &TcpListener) {
        while self.connections.try_join_next().is_some() {}
        let Ok(place) = Arc::clone(&self.room).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let connection =
                    converse(self.app.clone(), self.router.clone(), stream, self.closing.subscribe());
                self.connections.spawn(async move {
                    connection.await;
                    drop(place);
                });
            }
            // The guest has left before the door was opened; the next one may be there already.
            Err(error) if is_about_the_connection(&error) => {}
            Err(error) => {
                // Most likely no file descriptor is left, and asking at once again would only burn the processor.
                tracing::warn!(%error, "no connection could be accepted; trying again in a second");
                sleep(Duration::from_secs(1)).await;
            }
        }
    }

    async fn leave(mut self, ended: Ended) -> Ending {
        self.closing.send_replace(true);
        let all = async { while self.connections.join_next().await.is_some() {} };
        let closed = timeout_at(ended.deadline, all).await;
        let connections = ended.unfinished.max(if closed.is_ok() { 0 } else { self.connections.len() });
        self.connections.shutdown().await;
        if connections == 0 { Ending::Drained } else { Ending::TimedOut { connections } }
    }
}

fn is_about_the_connection(error: &io::Error) -> bool {
    use io::ErrorKind as Is;
    matches!(error.kind(), Is::ConnectionRefused | Is::ConnectionAborted | Is::ConnectionReset)
}

async fn converse(
    app: Arc<App>,
    router: axum::Router,
    stream: TcpStream,
    mut closing: watch::Receiver<bool>,
) {
    // Tokens are small and late ones are useless: they must not wait for one another in the kernel.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection keeps its delay");
    }
    let service = TowerToHyperService::new(router);
    let mut builder = http1::Builder::new();
    let timeouts = &app.settings.timeouts;
    builder.timer(TokioTimer::new()).header_read_timeout(timeouts.headers);
    let stream = TokioIo::new(Patient::new(stream, timeouts.stalled));
    let mut connection = pin!(builder.serve_connection(stream, service));
    let mut asked_to_close = pin!(async move { closing.wait_for(|closing| *closing).await.map(drop) });
    let ended = tokio::select! {
        ended = &mut connection => ended,
        _ = &mut asked_to_close => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended badly");
    }
}
