//! A graph over streams.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::{StreamExt, TryStreamExt, stream};

use super::*;

fn at_once(elements: usize) -> NonZeroUsize {
    NonZeroUsize::new(elements).unwrap()
}

/// Counts how many are alive, and the most that were.
#[derive(Default)]
struct Count {
    now: AtomicUsize,
    most: AtomicUsize,
}

/// Something of a thousand bytes.
struct Large {
    number: u64,
    count: Arc<Count>,
}

impl Large {
    fn new(number: u64, count: &Arc<Count>) -> Self {
        let now = count.now.fetch_add(1, Ordering::Relaxed) + 1;
        count.most.fetch_max(now, Ordering::Relaxed);
        Self { number, count: Arc::clone(count) }
    }
}

impl Drop for Large {
    fn drop(&mut self) {
        self.count.now.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Content for Large {
    fn feed(&self, digest: &mut Digest) {
        self.number.feed(digest);
    }

    fn heap_bytes(&self) -> u64 {
        1000
    }
}

#[tokio::test]
async fn a_long_stream_passes_in_bounded_memory() {
    const ELEMENTS: u64 = 5000;
    const AT_ONCE: usize = 8;
    const CACHE: u64 = 20_000;
    let (elements, results) = (Arc::new(Count::default()), Arc::new(Count::default()));
    let log = Log::default();
    let mut graph = Graph::builder();
    graph.memo(Memo::new(CACHE));
    let element = graph.unset_input::<Large>("element");
    let scale = graph.input("scale", 3u64);
    let table = add_sum(&mut graph, &log, "table", vec![scale.node()]);
    let made = Arc::clone(&results);
    let scaled =
        graph.node("scaled", (element, table)).run(move |(element, table): (Arc<Large>, Arc<u64>)| {
            let made = Arc::clone(&made);
            async move {
                tokio::task::yield_now().await;
                Ok::<_, Infallible>(Large::new(element.number * *table, &made))
            }
        });
    let graph = graph.build().unwrap();
    let source = stream::iter((0..ELEMENTS).map({
        let elements = Arc::clone(&elements);
        move |number| Large::new(number, &elements)
    }));
    let sum = graph.map_stream(source, element, scaled, at_once(AT_ONCE));
    let sum = sum.try_fold(0, |sum, large| async move { Ok(sum + large.number) }).await.unwrap();
    assert_eq!(sum, 3 * ELEMENTS * (ELEMENTS - 1) / 2);
    assert_eq!(log.take(), ["table"], "what does not depend on the element runs once");
    let kept = (CACHE / 1000) as usize;
    let most = |count: &Count| count.most.load(Ordering::Relaxed);
    assert!(most(&results) <= kept + AT_ONCE + 1, "{} results were alive", most(&results));
    assert!(most(&elements) <= AT_ONCE + 1, "{} elements were alive", most(&elements));
    assert_eq!(elements.now.load(Ordering::Relaxed), 0);
    graph.assert_rest().await;
}

#[tokio::test]
async fn order_is_kept_or_not_as_asked_and_errors_harm_no_neighbour() {
    let memo = Memo::default();
    let mut graph = Graph::builder();
    graph.memo(memo.clone());
    let element = graph.unset_input::<u64>("element");
    let inverse = graph.node("inverse", element).run(|element: Arc<u64>| async move {
        for _ in 0..*element {
            tokio::task::yield_now().await;
        }
        if *element == 3 { Err("three is not welcome") } else { Ok(100 - *element) }
    });
    let graph = graph.build().unwrap();
    let elements = || stream::iter([9, 1, 3, 9, 0]);
    let plain = |answer: Result<Arc<u64>, _>| answer.map_or(0, |value| *value);
    let ordered = graph.map_stream(elements(), element, inverse, at_once(3)).map(plain);
    assert_eq!(ordered.collect::<Vec<_>>().await, [91, 99, 0, 91, 100]);
    memo.clear();
    let unordered = graph.map_stream_unordered(elements(), element, inverse, at_once(5)).map(plain);
    let unordered: Vec<u64> = unordered.collect().await;
    assert_eq!(unordered[0], 100);
    assert_eq!(unordered.iter().sum::<u64>(), 381);
    assert_eq!(graph.stats().runs, 8, "equal elements are one run");
    assert!(graph.map_stream(elements(), element, inverse, at_once(2)).next().await.is_some());
    graph.assert_rest().await;
}
