//! Queues, pipelines, batchers, graphs and schedulers that a set of measurements shows beside its own: each is asked when
//! someone looks, so watching costs nothing in between.

use crate::batcher::{Batcher, BatcherStats};
use crate::graph::{Graph, GraphStats};
use crate::pipeline::{Pipeline, PipelineStats};
use crate::queue::{Queue, Stats};
use crate::scheduler::{Scheduler, SchedulerStatus};
use crate::work::StageError;

/// What can be watched. See [`crate::Metrics::watch`].
pub trait Watched: Send + Sync + 'static {
    /// What it has come to.
    fn report(&self) -> Report;
}

/// What something that is watched has come to.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Report {
    /// A queue.
    Queue(Box<Stats>),
    /// A pipeline.
    Pipeline(PipelineStats),
    /// A batcher.
    Batcher(Box<BatcherStats>),
    /// A graph.
    Graph(GraphStats),
    /// A scheduler.
    Scheduler(SchedulerStatus),
}

impl<T: Send + 'static> Watched for Queue<T> {
    fn report(&self) -> Report {
        Report::Queue(Box::new(self.stats()))
    }
}

impl<In: Send + 'static, Out: Send + 'static> Watched for Pipeline<In, Out> {
    fn report(&self) -> Report {
        Report::Pipeline(self.stats())
    }
}

impl<I, O, E> Watched for Batcher<I, O, E>
where
    I: Send + 'static,
    O: Send + 'static,
    E: StageError,
{
    fn report(&self) -> Report {
        Report::Batcher(Box::new(self.stats()))
    }
}

impl Watched for Graph {
    fn report(&self) -> Report {
        Report::Graph(self.stats())
    }
}

impl Watched for Scheduler {
    fn report(&self) -> Report {
        Report::Scheduler(self.status())
    }
}
