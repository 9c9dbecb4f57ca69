//! What becomes of nodes that fail, panic or take too long.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;

use super::*;
use crate::retry::{Class, Retry};
use crate::scheduler::{Inventory, Rules, Scheduler, Terms};

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[derive(Debug, thiserror::Error)]
#[error("no such file: {0}")]
struct NoSuchFile(u64);

#[tokio::test]
async fn a_failure_names_the_node_and_the_way_and_is_not_remembered() {
    let log = Log::default();
    let mut graph = Graph::builder();
    let (file, other) = (graph.input("file", 1u64), graph.input("other", 4u64));
    let load = graph
        .node("load", file)
        .run(|file: Arc<u64>| async move { if *file > 5 { Ok(*file) } else { Err(NoSuchFile(*file)) } });
    let aside = add_sum(&mut graph, &log, "aside", vec![other.node()]);
    let clean = add_sum(&mut graph, &log, "clean", vec![aside, load]);
    let report = add_sum(&mut graph, &log, "report", vec![clean]);
    let graph = graph.build().unwrap();

    for _ in 0..2 {
        let error = graph.get(report).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "node 'load' failed: no such file: 1 (on the way report ← clean ← load)"
        );
        assert_eq!(error.node(), Some("load"));
        let source = std::error::Error::source(&error).and_then(std::error::Error::source);
        assert_eq!(source.unwrap().downcast_ref::<NoSuchFile>().unwrap().0, 1);
    }
    assert_eq!(graph.stats().failures, 2, "a failure is tried anew");
    let answers = graph.get_many([aside, report, aside]).await.unwrap();
    assert_eq!(answers.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
    graph.set(file, 6).unwrap();
    assert_eq!(*graph.get(report).await.unwrap(), 10);
    graph.assert_rest().await;
}

#[tokio::test]
async fn a_panic_is_the_error_of_its_node_and_an_input_without_a_value_is_named() {
    let mut graph = Graph::builder();
    let number = graph.unset_input::<u64>("number");
    let odd = graph.node("odd", number).run(|number: Arc<u64>| async move {
        assert!(*number % 2 == 1, "{number} is even");
        Ok::<_, Infallible>(*number)
    });
    let early = graph.node("early", number).run(|number: Arc<u64>| {
        assert!(*number % 2 == 1, "{number} is even");
        async move { Ok::<_, Infallible>(*number) }
    });
    let blocking = graph.node("blocking", number).run_blocking(|number: Arc<u64>| {
        assert!(*number % 2 == 1, "{number} is even");
        Ok::<_, Infallible>(*number)
    });
    let graph = graph.build().unwrap();
    let error = graph.get(odd).await.unwrap_err().to_string();
    assert_eq!(
        error,
        "node 'number' is an input without a value; set it before asking (on the way odd ← number)"
    );
    graph.set(number, 2).unwrap();
    for (node, name) in [(odd, "odd"), (early, "early"), (blocking, "blocking")] {
        let error = graph.get(node).await.unwrap_err().to_string();
        assert_eq!(error, format!("node '{name}' panicked: 2 is even"));
    }
    graph.set(number, 3).unwrap();
    assert_eq!(graph.get([odd, early, blocking]).await.unwrap().map(|value| *value), [3, 3, 3]);
    graph.assert_rest().await;
}

#[tokio::test(start_paused = true)]
async fn attempts_are_limited_in_number_and_time() {
    let tries = Arc::new(AtomicU32::new(0));
    let mut graph = Graph::builder();
    let good_from = graph.input("good_from", 3u32);
    let counted = Arc::clone(&tries);
    let flaky = move |good_from: Arc<u32>| {
        let tried = counted.fetch_add(1, Ordering::Relaxed) + 1;
        async move {
            if tried == 1 {
                std::future::pending::<()>().await;
            }
            if tried >= *good_from { Ok(tried) } else { Err(NoSuchFile(tried.into())) }
        }
    };
    let retry = Retry::exponential(seconds(1), seconds(8)).attempts(3);
    let patient =
        graph.node("patient", good_from).retry(retry.clone()).timeout(seconds(5)).run(flaky.clone());
    let permanent = |error: &(dyn std::error::Error + Send + Sync + 'static)| match error.downcast_ref() {
        Some(NoSuchFile(_)) => Class::Permanent,
        None => Class::Transient,
    };
    let picky = graph.node("picky", good_from).retry_by_class(retry, permanent).run(flaky);
    let graph = graph.build().unwrap();
    assert_eq!(*graph.get(patient).await.unwrap(), 3);
    tries.store(0, Ordering::Relaxed);
    graph.set(good_from, 9).unwrap();
    let error = graph.get(patient).await.unwrap_err().to_string();
    assert_eq!(error, "node 'patient' failed 3 times, at last with: no such file: 3");
    let error = graph.get(picky).await.unwrap_err().to_string();
    assert_eq!(error, "node 'picky' failed: no such file: 4");
    graph.assert_rest().await;
}

#[tokio::test(start_paused = true)]
async fn a_timeout_ends_the_wait_and_a_blocking_straggler_keeps_its_place() {
    let mut graph = Graph::builder();
    graph.concurrency(1);
    let a = graph.input("a", 1u64);
    let stuck = graph.node("stuck", a).timeout(seconds(3)).run(async |_| {
        std::future::pending::<()>().await;
        Ok::<_, Infallible>(0u64)
    });
    let (release, gate) = std::sync::mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let straggler = graph.node("straggler", a).timeout(seconds(3)).run_blocking(move |a: Arc<u64>| {
        let _ = gate.lock().unwrap().recv();
        Ok::<_, Infallible>(*a)
    });
    let next = graph.node("next", a).run(async |a: Arc<u64>| Ok::<_, Infallible>(*a));
    let graph = graph.build().unwrap();
    assert_eq!(graph.get(stuck).await.unwrap_err().to_string(), "node 'stuck' did not finish within 3s");
    // The clock stands still of itself while a thread is blocked.
    let waiting = tokio::spawn(graph.get(straggler));
    while !waiting.is_finished() {
        tokio::time::advance(seconds(1)).await;
    }
    let error = waiting.await.unwrap().unwrap_err().to_string();
    assert_eq!(error, "node 'straggler' did not finish within 3s");
    let waiting = tokio::spawn(graph.get(next));
    tokio::time::advance(seconds(10)).await;
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished(), "the straggler holds the only place");
    release.send(()).unwrap();
    assert_eq!(*waiting.await.unwrap().unwrap(), 1);
    graph.assert_rest().await;
}

#[tokio::test]
async fn what_a_node_holds_is_acquired_before_and_given_back_after() {
    let places = Arc::new(Semaphore::new(1));
    let mut graph = Graph::builder();
    let a = graph.input("a", 1u64);
    let sum = {
        let (asked, seen) = (Arc::clone(&places), Arc::clone(&places));
        graph
            .node("sum", a)
            .holding(move || Arc::clone(&asked).acquire_owned())
            .run_blocking(move |a: Arc<u64>| Ok::<_, Infallible>(*a + seen.available_permits() as u64))
    };
    let graph = graph.build().unwrap();
    let permit = places.try_acquire().unwrap();
    let mut waiting = Box::pin(graph.get(sum));
    for _ in 0..10 {
        assert!(futures::poll!(&mut waiting).is_pending());
        tokio::task::yield_now().await;
    }
    drop(waiting);
    graph.assert_rest().await;
    drop(permit);
    assert_eq!(*graph.get(sum).await.unwrap(), 1);
    assert_eq!(places.available_permits(), 1);
    places.close();
    graph.set(a, 2).unwrap();
    let error = graph.get(sum).await.unwrap_err().to_string();
    assert_eq!(error, "node 'sum' failed: semaphore closed");
    graph.assert_rest().await;
}

#[tokio::test]
async fn needs_of_a_scheduler_are_reserved_while_the_node_runs() -> Result<(), BoxError> {
    let inventory = Inventory::new().memory(1000);
    let scheduler = Scheduler::new(&inventory, Rules::default())?;
    let needs = scheduler.needs("memory: 600B")?;
    let running = Arc::new(AtomicU32::new(0));
    let mut graph = Graph::builder();
    let nodes: Vec<Node<u32>> = (0..4)
        .map(|number| {
            let running = Arc::clone(&running);
            let node =
                graph.node(&format!("load {number}"), ()).needs(&scheduler, &needs, Terms::of("graph"));
            node.run(move |()| {
                let running = Arc::clone(&running);
                async move {
                    let beside = running.fetch_add(1, Ordering::Relaxed);
                    tokio::task::yield_now().await;
                    running.fetch_sub(1, Ordering::Relaxed);
                    Ok::<_, Infallible>(beside)
                }
            })
        })
        .collect();
    let graph = graph.build()?;
    assert_eq!(graph.get(nodes).await?, [0.into(), 0.into(), 0.into(), 0.into()]);
    graph.assert_rest().await;
    Ok(())
}
