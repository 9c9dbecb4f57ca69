//! A whole stream through a pipeline: some drivers take items from it in chunks and bring the outcomes home in chunks.
//!
//! An item whose stages are all ready at once is done within one poll and costs no allocation; only one that has to
//! wait becomes a future of its own. What is read ahead is bounded twice: by the pipeline's credits while an item is
//! inside, and by the window of this run until its outcome has been taken.

mod drive;
mod home;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::Stream;
use futures::stream::BoxStream;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::failure::Failure;
use super::road::Way;
pub(super) use drive::drive;
use home::{Home, Order};

/// So many places in the window are given back at once.
const MANY: usize = 32;

/// The outcomes of a stream of items, as a stream.
///
/// Nothing is read before it is polled, and dropping it cancels whatever it has under way. It runs on tasks of its
/// own, one for each worker thread of the runtime, so it must be polled inside one.
#[must_use = "a run does nothing unless it is polled"]
pub struct Run<In, Out> {
    way: Arc<dyn Way<In, Out>>,
    state: State<In, Out>,
    order: Order<Out>,
    /// Outcomes given out whose places in the window have not been given back.
    given: usize,
    within: Option<Duration>,
}

enum State<In, Out> {
    Fresh(BoxStream<'static, In>),
    Running { exchange: Arc<Exchange<In, Out>>, drivers: JoinSet<()> },
    Over,
}

/// What drivers and the owner of a run share.
pub(super) struct Exchange<In, Out> {
    source: tokio::sync::Mutex<Source<In>>,
    /// One for each outcome that may be under way or waiting to be taken.
    window: Semaphore,
    home: Home<Out>,
    within: Option<Duration>,
    /// So that no driver takes more than its share.
    largest_chunk: usize,
}

struct Source<In> {
    /// `None` once it has ended, or while it is being asked, so that one that panics is not asked again.
    stream: Option<BoxStream<'static, In>>,
    next: u64,
}

/// An outcome and the place of its item in the stream.
struct Arrival<Out> {
    index: u64,
    outcome: Result<Out, Box<Failure>>,
}

impl<In, Out> Run<In, Out>
where
    In: Send + 'static,
    Out: Send + 'static,
{
    pub(super) fn new(way: Arc<dyn Way<In, Out>>, items: BoxStream<'static, In>) -> Self {
        Self { way, state: State::Fresh(items), order: Order::as_completed(), given: 0, within: None }
    }

    /// Gives the outcomes in the order of the items, not as they come. An outcome then waits for the ones before it.
    pub fn ordered(mut self) -> Self {
        self.order = Order::as_read();
        self
    }

    /// Gives every item so much time from the moment at which it is read.
    pub fn within(mut self, time: Duration) -> Self {
        self.within = Some(time);
        self
    }

    fn start(&self, stream: BoxStream<'static, In>) -> State<In, Out> {
        let limit = self.way.gate().limit as usize;
        let drivers = Handle::current().metrics().num_workers().clamp(1, limit);
        let exchange = Arc::new(Exchange {
            source: tokio::sync::Mutex::new(Source { stream: Some(stream), next: 0 }),
            window: Semaphore::new(limit),
            home: Home::default(),
            within: self.within,
            largest_chunk: limit.div_ceil(2 * drivers),
        });
        let mut tasks = JoinSet::new();
        for _ in 0..drivers {
            tasks.spawn(self.way.clone().drive(exchange.clone()));
        }
        State::Running { exchange, drivers: tasks }
    }
}

impl<In, Out> Stream for Run<In, Out>
where
    In: Send + 'static,
    Out: Send + Unpin + 'static,
{
    type Item = Result<Out, Failure>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if let State::Fresh(_) = this.state
            && let State::Fresh(stream) = std::mem::replace(&mut this.state, State::Over)
        {
            this.state = this.start(stream);
        }
        loop {
            let outcome = this.order.next();
            this.given += usize::from(outcome.is_some());
            let State::Running { exchange, drivers } = &mut this.state else {
                return Poll::Ready(outcome);
            };
            if outcome.is_none() || this.given >= MANY {
                exchange.window.add_permits(std::mem::take(&mut this.given));
            }
            if outcome.is_some() {
                return Poll::Ready(outcome);
            }
            if exchange.home.collect(&mut this.order, cx) {
                continue;
            }
            // No outcome is there: either the drivers bring some, or one of them is done.
            match ready!(drivers.poll_join_next(cx)) {
                Some(Ok(())) => {}
                Some(Err(ended)) => match ended.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    // The runtime is going down and takes its tasks along.
                    Err(_) => this.state = State::Over,
                },
                None if exchange.home.collect(&mut this.order, cx) => {}
                None => this.state = State::Over,
            }
        }
    }
}

impl<In, Out> std::fmt::Debug for Run<In, Out> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Run").field("within", &self.within).finish_non_exhaustive()
    }
}
