//! What a graph must do.

mod behaviour;
mod building;
mod cancelling;
mod contents;
mod edits;
mod failing;
mod pictures;
mod scale;
mod streams;

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use super::*;

/// Writes down which nodes ran.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn note(&self, name: &str) {
        self.0.lock().unwrap().push(name.to_owned());
    }

    /// What ran since it was last asked, sorted.
    fn take(&self) -> Vec<String> {
        let mut ran = std::mem::take(&mut *self.0.lock().unwrap());
        ran.sort_unstable();
        ran
    }
}

/// A node that adds up its inputs and writes down that it ran.
fn add_sum(graph: &mut GraphBuilder, log: &Log, name: &str, deps: Vec<Node<u64>>) -> Node<u64> {
    let (log, own) = (log.clone(), name.to_owned());
    graph.node(name, deps).run(move |values: Vec<Arc<u64>>| {
        log.note(&own);
        async move { Ok::<_, Infallible>(values.iter().map(|value| **value).sum()) }
    })
}

impl Graph {
    /// Asserts that nothing is left of anybody who asked. Workers leave a moment after the last answer, on threads that
    /// may have to wait for a processor.
    async fn assert_rest(&self) {
        for _ in 0..100_000 {
            if self.shared.enter(|evaluation| evaluation.is_at_rest()) {
                return;
            }
            tokio::task::yield_now().await;
            std::thread::yield_now();
        }
        panic!("something is left: {:?}", self.stats());
    }
}
