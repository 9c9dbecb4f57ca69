//! Runs: which is next, and what becomes of its outcome.

use std::sync::Arc;

use futures::future::{AbortHandle, AbortRegistration};

use super::{Evaluation, FlightId, Known, Progress};
use crate::graph::builder::Blocks;
use crate::graph::memo::{Product, Value};
use crate::graph::node::Computation;
use crate::graph::plan::Plan;
use crate::graph::{Cause, Fingerprint};

/// A run that is to be done.
pub(in crate::graph) struct Job {
    pub(in crate::graph) plan: Arc<Plan>,
    pub(in crate::graph) node: u32,
    pub(in crate::graph) inputs: Vec<Value>,
    pub(in crate::graph) abort: AbortRegistration,
    pub(in crate::graph) ticket: JobTicket,
}

/// What names a run to the graph.
#[derive(Clone, Copy)]
pub(in crate::graph) struct JobTicket {
    flight: FlightId,
    key: Fingerprint,
    node: u32,
}

impl Evaluation {
    /// The next run, if one waits. A worker does one at a time, so that no more run than there are workers.
    pub(in crate::graph) fn next_job(&mut self) -> Option<Job> {
        let (id, flight) = loop {
            let id = self.ready.pop_front()?;
            // A flight that was taken back has left its id in the queue.
            if let Some(flight) = self.flights.get_mut(id) {
                break (id, flight);
            }
        };
        self.counts.runs += 1;
        let (handle, abort) = AbortHandle::new_pair();
        flight.progress = Progress::Running(handle);
        let ticket = JobTicket { flight: id, key: flight.key, node: flight.node };
        let (node, inputs) = (flight.node, std::mem::take(&mut flight.inputs));
        let settings = self.plan.nodes[node as usize].computation().map(|computation| &computation.settings);
        if settings.is_some_and(|settings| settings.blocks == Blocks::Thread && settings.acquire.is_none()) {
            self.commit(ticket);
        }
        Some(Job { plan: Arc::clone(&self.plan), node, inputs, abort, ticket })
    }

    /// Says that a run can no longer be stopped. No if it has been dropped already.
    pub(in crate::graph) fn commit(&mut self, ticket: JobTicket) -> Commitment {
        match self.flights.get_mut(ticket.flight) {
            Some(flight) => {
                flight.progress = Progress::Committed;
                Commitment::Given
            }
            None => Commitment::Dropped,
        }
    }

    /// Takes in what a run came to. What nobody waits for any more is kept all the same.
    pub(in crate::graph) fn land(&mut self, ticket: JobTicket, outcome: Result<Product, Cause>) {
        let JobTicket { flight, key, node } = ticket;
        let subscribers = self.flights.remove(flight).map(|flight| {
            self.aloft.remove(&key);
            flight.subscribers
        });
        let subscribers = subscribers.unwrap_or_default();
        match outcome {
            Ok(product) => {
                let known = Known { key, print: product.print.unwrap_or(key) };
                self.remember(node, known, &product);
                for task in subscribers {
                    self.settle(task, known, Some(Arc::clone(&product.value)));
                }
                self.effects.garbage.push(product.value);
            }
            Err(cause) => {
                self.counts.failures += 1;
                for task in subscribers {
                    self.fail(task, &cause);
                }
            }
        }
    }

    fn remember(&mut self, node: u32, known: Known, product: &Product) {
        let Known { key, print } = known;
        if self.plan.nodes[node as usize].computation().is_some_and(Computation::keeps) {
            let gone = self.memo.keep(key, (Arc::clone(&product.value), print), product.bytes);
            self.effects.garbage.extend(gone);
        } else {
            self.memo.note(key, print);
        }
    }
}

/// Whether a run goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::graph) enum Commitment {
    Given,
    Dropped,
}
