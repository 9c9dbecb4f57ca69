//! Laziness, remembering, changes, single flight.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures::FutureExt;
use futures::future::join_all;
use tokio::sync::Notify;

use super::*;

#[tokio::test]
async fn only_what_is_needed_runs_and_only_what_has_changed_runs_again() {
    let log = Log::default();
    let mut graph = Graph::builder();
    let (a, b) = (graph.input("a", 1u64), graph.input("b", 10u64));
    let left = add_sum(&mut graph, &log, "left", vec![a.node()]);
    let right = add_sum(&mut graph, &log, "right", vec![b.node()]);
    let both = add_sum(&mut graph, &log, "both", vec![left, right]);
    let _never = add_sum(&mut graph, &log, "never", vec![both]);
    let graph = graph.build().unwrap();

    assert_eq!(*graph.get(left).await.unwrap(), 1);
    assert_eq!(log.take(), ["left"]);
    assert_eq!(*graph.get(both).await.unwrap(), 11);
    assert_eq!(log.take(), ["both", "right"]);
    assert_eq!(graph.set(b, 10).unwrap(), Change::None);
    assert_eq!(graph.set(b, 20).unwrap(), Change::Changed);
    assert_eq!(graph.get((both, a, vec![left])).await.unwrap(), (21.into(), 1.into(), vec![1.into()]));
    assert_eq!(log.take(), ["both", "right"]);
    assert_eq!(graph.set(b, 10).unwrap(), Change::Changed);
    assert_eq!(graph.get(both).now_or_never().unwrap().unwrap(), 11.into(), "it is remembered");
    assert_eq!(log.take(), [""; 0]);
    graph.assert_rest().await;
}

#[tokio::test]
async fn a_result_that_comes_out_the_same_spares_what_is_behind_it() {
    let log = Log::default();
    let mut graph = Graph::builder();
    let number = graph.input("number", 7u64);
    let (noted, told) = (log.clone(), log.clone());
    let parity = graph.node("parity", number).run(move |number: Arc<u64>| {
        noted.note("parity");
        async move { Ok::<_, Infallible>(*number % 2) }
    });
    let blind = graph.node("blind", number).uncompared().run(move |number: Arc<u64>| {
        told.note("blind");
        async move { Ok::<_, Infallible>(*number % 2) }
    });
    let after_parity = add_sum(&mut graph, &log, "after_parity", vec![parity]);
    let after_blind = add_sum(&mut graph, &log, "after_blind", vec![blind]);
    let graph = graph.build().unwrap();

    graph.get((after_parity, after_blind)).await.unwrap();
    log.take();
    graph.set(number, 9).unwrap();
    graph.get((after_parity, after_blind)).await.unwrap();
    assert_eq!(log.take(), ["after_blind", "blind", "parity"]);
}

#[tokio::test]
async fn voided_results_are_made_anew_and_evicted_ones_only_if_they_are_needed() {
    let log = Log::default();
    let mut graph = Graph::builder();
    let a = graph.input("a", 1u64);
    let first = add_sum(&mut graph, &log, "first", vec![a.node()]);
    let second = add_sum(&mut graph, &log, "second", vec![first]);
    let third = add_sum(&mut graph, &log, "third", vec![second]);
    let graph = graph.build().unwrap();
    graph.get(third).await.unwrap();
    log.take();

    graph.evict(first).unwrap();
    graph.get(third).await.unwrap();
    assert_eq!(log.take(), [""; 0], "the value of 'first' is not needed");
    graph.evict(third).unwrap();
    graph.get(third).await.unwrap();
    assert_eq!(log.take(), ["third"]);
    graph.evict(second).unwrap();
    graph.evict(third).unwrap();
    graph.get(third).await.unwrap();
    assert_eq!(log.take(), ["first", "second", "third"]);
    graph.invalidate(second).unwrap();
    graph.get(third).await.unwrap();
    assert_eq!(log.take(), ["second"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_callers_make_one_run() {
    let runs = Arc::new(AtomicUsize::new(0));
    let (began, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let mut graph = Graph::builder();
    let a = graph.input("a", 5u64);
    let slow = {
        let (runs, began, go) = (Arc::clone(&runs), Arc::clone(&began), Arc::clone(&go));
        graph.node("slow", a).run(move |a: Arc<u64>| {
            let (runs, began, go) = (Arc::clone(&runs), Arc::clone(&began), Arc::clone(&go));
            async move {
                runs.fetch_add(1, Ordering::Relaxed);
                began.notify_one();
                go.notified().await;
                Ok::<_, Infallible>(*a)
            }
        })
    };
    let graph = graph.build().unwrap();
    // Half of them ask under a view of their own.
    let callers = (0..64).map(|caller| {
        let asked = if caller % 2 == 0 { graph.get(slow) } else { graph.with(a, 5).unwrap().get(slow) };
        tokio::spawn(asked)
    });
    let callers: Vec<_> = callers.collect();
    began.notified().await;
    go.notify_one();
    for answer in join_all(callers).await {
        assert_eq!(*answer.unwrap().unwrap(), 5);
    }
    assert_eq!(runs.load(Ordering::Relaxed), 1);
    graph.assert_rest().await;
}

#[tokio::test]
async fn a_get_answers_for_the_inputs_at_its_call_and_views_for_their_own() {
    let log = Log::default();
    let mut graph = Graph::builder();
    let (a, b) = (graph.input("a", 1u64), graph.input("b", 2u64));
    let sum = add_sum(&mut graph, &log, "sum", vec![a.node(), b.node()]);
    let graph = graph.build().unwrap();
    let before = graph.get(sum);
    graph.set(a, 10).unwrap();
    let other = graph.with(b, 100).unwrap();
    assert_eq!((*before.await.unwrap(), *graph.get(sum).await.unwrap()), (3, 12));
    assert_eq!(*other.get(sum).await.unwrap(), 110);
    assert_eq!(*other.with(a, 1).unwrap().get(sum).await.unwrap(), 101);
    graph.adopt(&other).unwrap();
    assert_eq!(*graph.get(sum).now_or_never().unwrap().unwrap(), 110);
    assert_eq!(log.take().len(), 4);
}

#[tokio::test]
async fn blocking_nodes_run_beside_the_runtime_and_independent_nodes_at_once() {
    let mut graph = Graph::builder();
    let a = graph.input("a", 1u64);
    let barrier = Arc::new(std::sync::Barrier::new(3));
    let blocking: Vec<Node<u64>> = (0..3)
        .map(|number| {
            let barrier = Arc::clone(&barrier);
            graph.node(&format!("blocking {number}"), a).run_blocking(move |a: Arc<u64>| {
                barrier.wait();
                Ok::<_, Infallible>(*a + number)
            })
        })
        .collect();
    let graph = graph.build().unwrap();
    let values = graph.get(blocking).await.unwrap();
    assert_eq!(values, [1.into(), 2.into(), 3.into()]);
}

#[tokio::test]
async fn memos_are_shared_between_graphs_and_versions_keep_results_apart() {
    let log = Log::default();
    let memo = Memo::default();
    let build = |version: u64, param: u64| {
        let mut graph = Graph::builder();
        graph.memo(memo.clone());
        let a = graph.input("a", 1u64);
        let log = log.clone();
        let node = graph.node("node", a).version(version).params(&param).run(move |a: Arc<u64>| {
            log.note("node");
            async move { Ok::<_, Infallible>(*a + param) }
        });
        (graph.build().unwrap(), node)
    };
    let mut ran = Vec::new();
    for (version, param) in [(1, 0), (1, 0), (2, 0), (2, 5), (1, 0)] {
        let (graph, node) = build(version, param);
        assert_eq!(*graph.get(node).await.unwrap(), 1 + param);
        ran.push(log.take().len());
    }
    assert_eq!(ran, [1, 0, 1, 1, 0]);
}
