//! Futures that are dropped, at every point at which they can be.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures::poll;
use tokio::task::yield_now;

use super::*;

/// Counts the runs that are alive, and the most there were.
#[derive(Clone, Default)]
struct Alive(Arc<(AtomicUsize, AtomicUsize)>);

struct Life(Alive);

impl Alive {
    fn begin(&self) -> Life {
        let now = self.0.0.fetch_add(1, Ordering::Relaxed) + 1;
        self.0.1.fetch_max(now, Ordering::Relaxed);
        Life(self.clone())
    }

    fn now(&self) -> usize {
        self.0.0.load(Ordering::Relaxed)
    }

    fn most(&self) -> usize {
        self.0.1.load(Ordering::Relaxed)
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        self.0.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Two places, and a graph in which `left` and `right` share what they need.
fn draw(alive: &Alive) -> (Graph, Input<u64>, [Node<u64>; 2]) {
    let mut graph = Graph::builder();
    graph.concurrency(2);
    let a = graph.input("a", 1u64);
    let mut slow = |name: &str, deps: Vec<Node<u64>>| {
        let alive = alive.clone();
        graph.node(name, deps).run(move |values: Vec<Arc<u64>>| {
            let life = alive.begin();
            async move {
                for _ in 0..3 {
                    yield_now().await;
                }
                drop(life);
                Ok::<_, Infallible>(values.iter().map(|value| **value).sum())
            }
        })
    };
    let first = slow("first", vec![a.node()]);
    let more: Vec<_> = (0..3).map(|number| slow(&format!("more {number}"), vec![first])).collect();
    let left = slow("left", more.clone());
    let right = slow("right", vec![more[0], first]);
    (graph.build().unwrap(), a, [left, right])
}

/// Polls so often, with time for others in between. Whether it came to an end.
async fn poll_times<F: Future + Unpin>(mut future: F, times: usize) -> bool {
    for _ in 0..times {
        if poll!(&mut future).is_ready() {
            return true;
        }
        yield_now().await;
    }
    false
}

#[tokio::test]
async fn a_get_dropped_after_any_number_of_polls_leaves_nothing_behind() {
    let alive = Alive::default();
    let mut times = 0;
    loop {
        let (graph, a, [left, right]) = draw(&alive);
        let is_done = poll_times(graph.get(left), times).await;
        graph.assert_rest().await;
        assert_eq!(alive.now(), 0, "dropped after {times} polls");
        assert_eq!(*graph.get((left, right)).await.unwrap().0, 3);
        graph.set(a, 5).unwrap();
        assert_eq!(*graph.get((left, right)).await.unwrap().1, 10);
        graph.assert_rest().await;
        if is_done {
            break;
        }
        times += 1;
    }
    assert!(times > 10, "{times} polls are too few to mean anything");
    assert_eq!(alive.most(), 2);
}

#[tokio::test]
async fn who_stays_gets_an_answer_whoever_else_goes() {
    let alive = Alive::default();
    for (goes, joins) in (0..30).flat_map(|goes| (0..30).step_by(3).map(move |joins| (goes, joins))) {
        let (graph, _, [left, right]) = draw(&alive);
        let mut going = graph.get(left);
        let is_done = poll_times(&mut going, goes.min(joins)).await;
        let mut staying = Box::pin(graph.get((right, left)));
        assert!(poll!(&mut staying).is_pending());
        if !is_done {
            poll_times(&mut going, goes.saturating_sub(joins)).await;
        }
        drop(going);
        assert_eq!(staying.await.unwrap(), (2.into(), 3.into()));
        graph.assert_rest().await;
        assert_eq!(graph.stats().runs, 6, "nothing ran twice");
    }
    assert_eq!((alive.now(), alive.most()), (0, 2));
}

#[tokio::test]
async fn what_nobody_waits_for_any_more_is_dropped_and_the_rest_goes_on() {
    let alive = Alive::default();
    let mut graph = Graph::builder();
    let endless = |graph: &mut GraphBuilder, name: &str, deps: Vec<Node<u64>>| {
        let alive = alive.clone();
        graph.node(name, deps).run(move |_: Vec<Arc<u64>>| {
            let life = alive.begin();
            async move {
                std::future::pending::<()>().await;
                drop(life);
                Ok::<_, Infallible>(0u64)
            }
        })
    };
    let (common, alone) = (endless(&mut graph, "common", vec![]), endless(&mut graph, "alone", vec![]));
    let (one, two) =
        (endless(&mut graph, "one", vec![common, alone]), endless(&mut graph, "two", vec![common, common]));
    let graph = graph.build().unwrap();
    let mut one = Box::pin(graph.get(one));
    let mut two = Box::pin(graph.get(two));
    assert!(poll!(&mut one).is_pending() && poll!(&mut two).is_pending());
    yield_now().await;
    assert_eq!(alive.now(), 2);
    drop(one);
    for _ in 0..5 {
        yield_now().await;
    }
    assert_eq!((alive.now(), graph.stats().cancelled), (1, 1));
    drop(two);
    graph.assert_rest().await;
    assert_eq!((alive.now(), graph.stats().cancelled), (0, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_views_changes_and_departures() {
    let alive = Alive::default();
    let (graph, a, [left, right]) = draw(&alive);
    let storm = |seed: u64| {
        let graph = graph.clone();
        tokio::spawn(async move {
            let mut random = crate::random::Random::seeded(seed);
            for _ in 0..500 {
                let value = random.below(6);
                let asked = match random.below(4) {
                    0 => {
                        graph.set(a, value).unwrap();
                        graph.evict(left).unwrap();
                        continue;
                    }
                    1 => {
                        graph.invalidate(right).unwrap();
                        continue;
                    }
                    _ => graph.with(a, value).unwrap().get((left, right)),
                };
                if random.below(3) == 0 {
                    poll_times(asked, random.below(20) as usize).await;
                } else {
                    assert_eq!(asked.await.unwrap(), ((3 * value).into(), (2 * value).into()));
                }
            }
        })
    };
    for task in (0..8).map(storm).collect::<Vec<_>>() {
        task.await.unwrap();
    }
    graph.assert_rest().await;
    assert_eq!((alive.now(), alive.most()), (0, 2));
}

#[tokio::test]
async fn many_who_come_and_go_leave_no_trace_while_one_stays() {
    let alive = Alive::default();
    let (graph, a, [left, right]) = draw(&alive);
    let mut staying = Box::pin(graph.get(left));
    assert!(poll!(&mut staying).is_pending());
    for value in 0..1000 {
        assert!(poll!(&mut Box::pin(graph.get(right))).is_pending());
        assert!(poll!(&mut Box::pin(graph.with(a, 1 + value).unwrap().get(right))).is_pending());
    }
    let longest = graph.shared.enter(|evaluation| evaluation.longest_list());
    assert!(longest < 40, "{longest} of those who went are remembered");
    assert_eq!(*staying.await.unwrap(), 3);
    graph.assert_rest().await;
}

#[test]
fn a_runtime_that_shuts_down_harms_no_other() {
    let build = || tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    let (first, second) = (build(), build());
    let mut graph = Graph::builder();
    graph.concurrency(1);
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let node = graph.node("node", ()).run(move |()| {
        let call = counted.fetch_add(1, Ordering::Relaxed);
        async move {
            if call == 0 {
                std::future::pending::<()>().await;
            }
            Ok::<_, Infallible>(7u64)
        }
    });
    let queued = graph.node("queued", ()).run(async |()| Ok::<_, Infallible>(8u64));
    let graph = graph.build().unwrap();
    let on_first = first.spawn(graph.get(node));
    while calls.load(Ordering::Relaxed) == 0 {
        std::thread::yield_now();
    }
    let waiting = second.spawn(graph.get(node));
    let behind = second.spawn(graph.get(queued));
    while graph.shared.enter(|evaluation| evaluation.callers_now()) < 3 {
        std::thread::yield_now();
    }
    first.shutdown_background();
    let error = second.block_on(waiting).unwrap().unwrap_err();
    assert!(matches!(error, GraphError::Node { cause: Cause::Abandoned, .. }), "{error}");
    assert_eq!(*second.block_on(behind).unwrap().unwrap(), 8);
    assert_eq!(*second.block_on(graph.get(node)).unwrap(), 7);
    drop(on_first);
}
