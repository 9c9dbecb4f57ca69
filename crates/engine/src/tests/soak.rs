//! Many random requests with random cancellation: nothing is lost, nothing leaks, everything ends once.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use proptest::prelude::*;
use protocol::{Event, Failure, GenerateRequest, Inference, Priority};

use super::bench::{Bench, loaded, settings, tokens};
use super::equality::requests;
use super::model::HashModel;
use crate::Engine;

#[derive(Clone, Debug)]
struct Visit {
    request: GenerateRequest,
    /// Steps before the next visit.
    pause: usize,
    /// Steps after which the client goes away.
    patience: Option<usize>,
}

fn visits() -> impl Strategy<Value = Visit> {
    let priority = prop_oneof![Just(Priority::High), Just(Priority::Normal), Just(Priority::Low)];
    let deadline = prop::option::weighted(0.2, (0u64..2000).prop_map(Duration::from_millis));
    (requests(), priority, deadline, 0usize..4, prop::option::weighted(0.4, 0usize..40)).prop_map(
        |(request, priority, deadline, pause, patience)| Visit {
            request: GenerateRequest { priority, deadline, ..request },
            pause,
            patience,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(60) })]

    #[test]
    fn every_accepted_request_ends_once_and_all_pages_return(
        visits in prop::collection::vec(visits(), 1..60),
        pages in 6usize..30,
        sequences in 1usize..9,
        extra in 0usize..40,
    ) {
        let mut settings = settings(pages, sequences + extra, sequences);
        settings.queue_requests = 10;
        let mut bench = Bench::new(HashModel::new(), settings);
        let mut clients = Vec::new();
        let (mut accepted, mut step) = (0, 0);
        for visit in visits {
            if let Ok(client) = bench.ask(visit.request) {
                accepted += 1;
                clients.push((client, visit.patience.map(|patience| step + patience)));
            }
            for _ in 0..visit.pause {
                bench.step();
                step += 1;
                clients.retain(|(_, until)| until.is_none_or(|until| step < until));
            }
        }
        bench.finish();
        for (client, _) in clients {
            prop_assert!(client.transcript().end.is_some());
        }
        let status = bench.engine.status();
        let counters = status.counters;
        let sum = |counts: &[(String, u64)]| counts.iter().map(|(_, n)| n).sum::<u64>();
        prop_assert_eq!(counters.accepted, accepted);
        prop_assert_eq!(sum(&counters.completed) + sum(&counters.failed) + sum(&counters.cancelled), accepted);
        let load = status.load;
        prop_assert_eq!((load.queued, load.running, load.kv_pages_used), (0, 0, 0));
    }
}

#[test]
fn dropping_the_engine_fails_what_still_runs() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let engine = Engine::start(loaded(HashModel::new()), settings(128, 64, 8)).unwrap();
    let mut request = tokens(vec![1], 4000);
    request.limits.ignore_eos = true;
    let events = runtime.block_on(async {
        let mut events = engine.generate(request).await.unwrap();
        assert_eq!(events.next().await, Some(Event::Started));
        drop(engine);
        events.collect::<Vec<_>>().await
    });
    assert_eq!(events.last(), Some(&Event::Failed(Failure::ShuttingDown)));
}

/// The same through the engine's own thread, many clients at once.
#[test]
fn clients_on_many_threads_are_served_by_the_engines_thread() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let engine = Engine::start(loaded(HashModel::new()), settings(40, 64, 8)).unwrap();
    let serve = |engine: Arc<Engine>, i: u32| async move {
        let mut request = tokens(vec![i % 500; 1 + i as usize % 70], 40);
        request.limits.ignore_eos = true;
        let mut events = engine.generate(request).await.unwrap();
        let (mut count, mut ended) = (0, false);
        while let Some(event) = events.next().await {
            assert!(!ended);
            match event {
                Event::Delta(delta) => count += delta.tokens.len(),
                Event::Done { .. } => ended = true,
                Event::Failed(failure) => panic!("{failure}"),
                _ => {}
            }
            if i.is_multiple_of(2) && count > 10 {
                return;
            }
        }
        assert!(ended && count == 40);
    };
    runtime.block_on(async {
        let tasks: Vec<_> = (0..200).map(|i| tokio::spawn(serve(engine.clone(), i))).collect();
        for task in tasks {
            task.await.unwrap();
        }
        engine.drain().await;
        let load = engine.status().load;
        assert_eq!((load.queued, load.running), (0, 0));
        let report = engine.stop(Duration::from_secs(1)).await;
        assert_eq!(report.aborted, 0);
    });
    assert_eq!(engine.status().load.kv_pages_used, 0);
}
