//! Large graphs, and bounds that hold in them.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures::poll;

use super::*;

/// A chain of additions behind `start`, and its last node.
fn add_chain(graph: &mut GraphBuilder, start: Node<u64>, length: usize) -> Node<u64> {
    (0..length).fold(start, |before, place| {
        let add = async |value: Arc<u64>| Ok::<_, Infallible>(*value + 1);
        graph.node(&format!("link {place}"), before).run(add)
    })
}

#[tokio::test]
async fn a_chain_of_a_hundred_thousand_nodes() {
    const LENGTH: usize = 100_000;
    let mut graph = Graph::builder();
    let start = graph.input("start", 1u64);
    let checked = graph.node("checked", start).run(|start: Arc<u64>| async move {
        if *start == 0 { Err("nothing comes of nothing") } else { Ok(*start) }
    });
    let last = add_chain(&mut graph, checked, LENGTH);
    let graph = graph.build().unwrap();
    assert_eq!(*graph.get(last).await.unwrap(), 1 + LENGTH as u64);
    graph.set(start, 2).unwrap();
    assert_eq!(graph.explain(last).unwrap().may_run().count(), LENGTH + 1);
    assert_eq!(*graph.get(last).await.unwrap(), 2 + LENGTH as u64);

    graph.set(start, 3).unwrap();
    let mut dropped = Box::pin(graph.get(last));
    assert!(poll!(&mut dropped).is_pending());
    drop(dropped);
    graph.assert_rest().await;

    graph.set(start, 0).unwrap();
    let error = graph.get(last).await.unwrap_err();
    let GraphError::Node { path, .. } = &error else { panic!("{error}") };
    assert_eq!(path.names().len(), LENGTH + 1);
    assert!(error.to_string().len() < 400, "{error}");
    graph.assert_rest().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fan_of_ten_thousand_nodes_never_runs_more_at_once_than_it_may() {
    const WIDTH: u64 = 10_000;
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut graph = Graph::builder();
    graph.concurrency(7);
    let start = graph.input("start", 1u64);
    let spokes: Vec<Node<u64>> = (0..WIDTH)
        .map(|number| {
            let (running, most) = (Arc::clone(&running), Arc::clone(&most));
            graph.node(&format!("spoke {number}"), start).run(move |start: Arc<u64>| {
                let (running, most) = (Arc::clone(&running), Arc::clone(&most));
                async move {
                    most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    // The first ones stay until every place was taken once, so that the most does not depend on the threads.
                    for _ in 0..1_000 {
                        tokio::task::yield_now().await;
                        if most.load(Ordering::SeqCst) >= 7 {
                            break;
                        }
                    }
                    running.fetch_sub(1, Ordering::SeqCst);
                    Ok::<_, Infallible>(*start + number)
                }
            })
        })
        .collect();
    let hub = add_sum(&mut graph, &Log::default(), "hub", spokes);
    let graph = graph.build().unwrap();
    let sum = |start: u64| WIDTH * start + WIDTH * (WIDTH - 1) / 2;
    assert_eq!(*graph.get(hub).await.unwrap(), sum(1));
    graph.set(start, 2).unwrap();
    let asked = (0..8).map(|_| tokio::spawn(graph.get(hub)));
    for answer in futures::future::join_all(asked).await {
        assert_eq!(*answer.unwrap().unwrap(), sum(2));
    }
    assert_eq!(most.load(Ordering::SeqCst), 7);
    assert_eq!(graph.stats().runs, 2 * (WIDTH + 1));
    graph.assert_rest().await;
}

#[tokio::test]
async fn results_too_large_to_keep_are_made_once_for_those_who_wait() {
    let log = Log::default();
    let mut graph = Graph::builder();
    graph.memo(Memo::new(0));
    let mut node = graph.input("start", 1u64).node();
    for place in 0..20 {
        let left = add_sum(&mut graph, &log, &format!("left {place}"), vec![node]);
        let right = add_sum(&mut graph, &log, &format!("right {place}"), vec![node]);
        node = add_sum(&mut graph, &log, &format!("both {place}"), vec![left, right]);
    }
    let graph = graph.build().unwrap();
    for _ in 0..2 {
        assert_eq!(*graph.get(node).await.unwrap(), 1 << 20);
        assert_eq!(log.take().len(), 60);
    }
    assert_eq!(graph.stats().memo.entries, 0);
}
