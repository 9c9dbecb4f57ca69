//! What a node does, and one run of it.

use std::any::Any;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::Instant;

use super::builder::{Blocks, Comparison};
use super::content::fingerprint_of;
use super::memo::{Product, Value};
use super::{BoxError, Cause, Content, Fingerprint};
use crate::random::Random;
use crate::retry::{Attempt, Class, Retry};

/// What a node computes, and under which conditions.
pub(super) struct Computation {
    /// Stands for the node: its name, type, version and parameters.
    pub(super) seed: Fingerprint,
    pub(super) begin: Begin,
    pub(super) settings: Settings,
}

/// Begins a node's function with the values of what the node depends on.
pub(super) type Begin = Box<dyn Fn(&[Value]) -> Begun + Send + Sync>;

/// What a node's function has made.
pub(super) type Made = Result<Product, BoxError>;

/// A node's function, begun.
pub(super) enum Begun {
    Future(BoxFuture<'static, Made>),
    Blocking(Box<dyn FnOnce() -> Made + Send>),
}

/// Something that a node holds while it runs.
pub(super) type Held = Box<dyn Send>;

/// Waits for what a node holds while it runs.
type Acquire = Box<dyn Fn() -> BoxFuture<'static, Result<Held, BoxError>> + Send + Sync>;

/// Says what an error means for trying again.
pub(super) type Judge = Box<dyn Fn(&(dyn Error + Send + Sync + 'static)) -> Class + Send + Sync>;

/// Under which conditions a node runs.
pub(super) struct Settings {
    pub(super) timeout: Option<Duration>,
    pub(super) retry: Retry,
    pub(super) judge: Option<Judge>,
    pub(super) acquire: Option<Acquire>,
    pub(super) comparison: Comparison,
    pub(super) blocks: Blocks,
    /// Whether results enter the cache.
    pub(super) keeps: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            timeout: None,
            retry: Retry::never(),
            judge: None,
            acquire: None,
            comparison: Comparison::Result,
            blocks: Blocks::Nothing,
            keeps: true,
        }
    }
}

impl Comparison {
    /// What a graph must know of a result.
    pub(super) fn appraise<B: Content + Send + Sync + 'static>(self, result: B) -> Product {
        let print = match self {
            Self::Result => fingerprint_of(&result),
            Self::Inputs => None,
        };
        let bytes = size_of::<B>() as u64 + result.heap_bytes();
        Product { value: Arc::new(result), print, bytes }
    }
}

/// How a run ended.
pub(super) struct Ran {
    pub(super) outcome: Result<Product, Cause>,
    /// What is still going on, though its outcome no longer matters.
    pub(super) straggler: Option<Straggler>,
}

/// A blocking function that took too long, and what it holds.
pub(super) struct Straggler {
    thread: JoinHandle<Made>,
    _held: Option<Held>,
}

impl Straggler {
    pub(super) async fn end(self) {
        // What it makes or fails with comes too late to be of use.
        drop(self.thread.await);
    }
}

/// Why an attempt made nothing.
enum Failure {
    Error(BoxError),
    Timeout(Duration),
    Straggles(Duration, JoinHandle<Made>),
    Died(JoinError),
}

/// Something that happens between the attempts of a run.
pub(super) enum Mark<'a> {
    /// An attempt with that number begins.
    Attempt(u32),
    /// The attempt with that number failed, and there will be another after a wait.
    Retry(u32, Duration, &'a Cause),
}

impl Computation {
    /// Whether results enter the cache.
    pub(super) fn keeps(&self) -> bool {
        self.settings.keeps
    }

    /// Waits for what the node holds while it runs.
    pub(super) async fn acquire(&self) -> Result<Option<Held>, Cause> {
        let Some(acquire) = &self.settings.acquire else { return Ok(None) };
        let held = acquire().await.map_err(|error| Cause::Error { error: error.into(), attempts: 1 });
        held.map(Some)
    }

    /// Runs the node's function, several times if need be.
    pub(super) async fn run(
        &self,
        held: Option<Held>,
        mut inputs: Vec<Value>,
        mark: &(dyn Fn(Mark<'_>) + Sync),
    ) -> Ran {
        let Settings { retry, .. } = &self.settings;
        let mut attempts = 1;
        loop {
            mark(Mark::Attempt(attempts));
            let begun = (self.begin)(&inputs);
            if !retry.allows_after(attempts) {
                inputs = Vec::new();
            }
            let failure = match self.attempt(begun).await {
                Ok(product) => {
                    // Looking at the clock costs as much as some nodes do.
                    if retry.allows_after(1) {
                        retry.succeeded(Instant::now());
                    }
                    return Ran { outcome: Ok(product), straggler: None };
                }
                Err(Failure::Straggles(after, thread)) => {
                    let outcome = Err(Cause::Timeout { after, attempts });
                    return Ran { outcome, straggler: Some(Straggler { thread, _held: held }) };
                }
                Err(failure) => failure,
            };
            let attempt = Attempt {
                number: attempts,
                class: self.class(&failure),
                failed_at: Instant::now(),
                deadline: None,
                usual: Duration::ZERO,
            };
            let wait = retry.after(attempt, &mut Random::unpredictable());
            let cause = failure.cause(attempts);
            match wait {
                Ok(wait) => {
                    mark(Mark::Retry(attempts, wait, &cause));
                    tokio::time::sleep(wait).await;
                    attempts += 1;
                }
                Err(_) => return Ran { outcome: Err(cause), straggler: None },
            }
        }
    }

    async fn attempt(&self, begun: Begun) -> Result<Product, Failure> {
        match (begun, self.settings.timeout) {
            (Begun::Future(future), None) => future.await.map_err(Failure::Error),
            (Begun::Future(future), Some(after)) => match tokio::time::timeout(after, future).await {
                Ok(made) => made.map_err(Failure::Error),
                Err(_) => Err(Failure::Timeout(after)),
            },
            (Begun::Blocking(function), timeout) => {
                let mut thread = tokio::task::spawn_blocking(function);
                let joined = match timeout {
                    None => thread.await,
                    Some(after) => match tokio::time::timeout(after, &mut thread).await {
                        Ok(joined) => joined,
                        Err(_) => return Err(Failure::Straggles(after, thread)),
                    },
                };
                joined.map_err(Failure::Died)?.map_err(Failure::Error)
            }
        }
    }

    fn class(&self, failure: &Failure) -> Class {
        match failure {
            Failure::Error(error) => {
                self.settings.judge.as_ref().map_or(Class::Transient, |judge| judge(error.as_ref()))
            }
            Failure::Timeout(_) => Class::Transient,
            Failure::Straggles(..) | Failure::Died(_) => Class::Permanent,
        }
    }
}

impl Failure {
    fn cause(self, attempts: u32) -> Cause {
        match self {
            Self::Error(error) => Cause::Error { error: error.into(), attempts },
            Self::Timeout(after) | Self::Straggles(after, _) => Cause::Timeout { after, attempts },
            Self::Died(died) => match died.try_into_panic() {
                Ok(panic) => panic_cause(panic.as_ref()),
                Err(_) => Cause::Abandoned,
            },
        }
    }
}

/// What a panic said.
pub(super) fn panic_cause(panic: &(dyn Any + Send)) -> Cause {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let message = text.or_else(|| panic.downcast_ref::<String>().cloned());
    Cause::Panic { message: message.unwrap_or_else(|| "it did not say why".to_owned()) }
}
