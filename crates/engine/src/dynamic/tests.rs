//! A model that a test holds and lets go: what waits, in which order, what becomes of whom.

mod stuck;

use std::sync::mpsc::{Receiver, Sender, channel};

use flow::queue::policy::Discipline;
use tokio::task::JoinHandle;

use super::*;

/// Doubles numbers, one batch for each word of the test; 7 is refused and 13 makes it panic.
struct Doubling {
    go: Receiver<()>,
    batches: Arc<Mutex<Vec<Vec<u64>>>>,
}

#[derive(Debug, thiserror::Error)]
#[error("it does not like {0}")]
struct Disliked(u64);

impl BatchModel for Doubling {
    type Input = u64;
    type Output = u64;
    type Error = Disliked;

    fn cost(_: &u64) -> u64 {
        1
    }

    fn run(&mut self, batch: &[Arc<u64>]) -> Result<Vec<Result<u64, Disliked>>, Disliked> {
        // Without a word, the test has ended and nobody looks any more.
        let _ = self.go.recv();
        self.batches.lock().unwrap().push(batch.iter().map(|input| **input).collect());
        assert!(!batch.iter().any(|input| **input == 13), "13 again");
        Ok(batch.iter().map(|input| if **input == 7 { Err(Disliked(7)) } else { Ok(2 * **input) }).collect())
    }
}

type Outcome = Result<Result<u64, ItemError>, Unserved>;

struct Bench {
    dynamic: Arc<Dynamic<Doubling>>,
    go: Sender<()>,
    batches: Arc<Mutex<Vec<Vec<u64>>>>,
}

impl Bench {
    fn new(settings: DynamicSettings) -> Self {
        Self::with(settings, Care { turns: Turns::default(), revive: None })
    }

    fn with(settings: DynamicSettings, care: Care<Doubling>) -> Self {
        let (go, held) = channel();
        let batches = Arc::default();
        let model = Doubling { go: held, batches: Arc::clone(&batches) };
        let clock = Arc::new(SystemClock::new());
        let shared = Shared::new((model, care), &settings, Handle::current(), clock).unwrap();
        Self { dynamic: Arc::new(Dynamic { shared, runtime: None }), go, batches }
    }

    fn submit(&self, tenant: &str, input: u64) -> JoinHandle<Outcome> {
        self.submit_until(tenant, input, None)
    }

    fn submit_until(&self, tenant: &str, input: u64, deadline: Option<Duration>) -> JoinHandle<Outcome> {
        let dynamic = Arc::clone(&self.dynamic);
        let terms = Terms { tenant: TenantId(tenant.to_owned()), deadline, ..Terms::default() };
        tokio::spawn(async move { dynamic.submit(input, terms).await })
    }

    /// Lets so many batches run.
    fn go(&self, batches: usize) {
        (0..batches).for_each(|_| self.go.send(()).unwrap());
    }

    /// Waits, without a clock, until something is so.
    async fn until(&self, is_so: impl Fn(&Self) -> bool) {
        while !is_so(self) {
            tokio::task::yield_now().await;
        }
    }

    /// Has the model hold its first batch, of one input.
    async fn busy(&self) -> JoinHandle<Outcome> {
        let first = self.submit("first", 1);
        self.until(|bench| bench.running() == 1).await;
        first
    }

    fn running(&self) -> usize {
        self.dynamic.shared.batcher.stats().running
    }

    fn served(&self) -> Vec<Vec<u64>> {
        self.batches.lock().unwrap().clone()
    }
}

fn settings() -> DynamicSettings {
    DynamicSettings { batch_items: 4, batch_cost: 4, max_delay: Duration::ZERO, ..DynamicSettings::default() }
}

#[tokio::test]
async fn what_comes_meanwhile_goes_together_and_no_batch_is_too_large() {
    let bench = Bench::new(settings());
    let first = bench.busy().await;
    let others: Vec<_> = (2..=7).map(|input| bench.submit("a", input)).collect();
    bench.until(|bench| bench.dynamic.status().counters.accepted == 7).await;
    bench.go(3);
    assert_eq!(first.await.unwrap().unwrap(), Ok(2));
    let mut outcomes = Vec::new();
    for other in others {
        outcomes.push(other.await.unwrap().unwrap());
    }
    let disliked = ItemError { message: "it does not like 7".to_owned() };
    assert_eq!(outcomes, [Ok(4), Ok(6), Ok(8), Ok(10), Ok(12), Err(disliked)]);
    assert_eq!(bench.served(), [vec![1], vec![2, 3, 4, 5], vec![6, 7]]);
    let status = bench.dynamic.status();
    assert_eq!((status.load.queued, status.load.running, status.counters.steps), (0, 0, 3));
}

#[tokio::test]
async fn tenants_share_and_a_flood_of_one_does_not_hold_up_the_other() {
    let fair: Discipline = "fair_share".parse().unwrap();
    let bench = Bench::new(DynamicSettings { policy: fair.into(), ..settings() });
    let first = bench.busy().await;
    let flood: Vec<_> = (100..140).map(|input| bench.submit("flood", input)).collect();
    bench.until(|bench| bench.dynamic.status().counters.accepted == 41).await;
    let few: Vec<_> = (2..=3).map(|input| bench.submit("few", input)).collect();
    // Twelve have passed: three batches.
    bench.until(|bench| bench.dynamic.shared.turnstile.waiting() == 31).await;
    bench.go(60);
    for one in [first].into_iter().chain(flood).chain(few) {
        one.await.unwrap().unwrap().unwrap();
    }
    let served = bench.served();
    let at = |input: u64| served.iter().position(|batch| batch.contains(&input)).unwrap();
    // They came last, and are served before the flood is half over.
    assert!(at(2) < at(120) && at(3) < at(120), "{served:?}");
}

#[tokio::test]
async fn dropping_the_future_takes_the_input_out_wherever_it_is() {
    let bench = Bench::new(settings());
    let first = bench.busy().await;
    let waiting: Vec<_> = (2..=20).map(|input| bench.submit("a", input)).collect();
    bench.until(|bench| bench.dynamic.status().counters.accepted == 20).await;
    for one in waiting {
        one.abort();
    }
    bench.until(|bench| bench.dynamic.shared.roll.count() == 1).await;
    let load = bench.dynamic.status().load;
    assert_eq!((load.queued, load.running), (0, 1));
    bench.go(2);
    assert_eq!(first.await.unwrap().unwrap(), Ok(2));
    assert_eq!(bench.submit("a", 30).await.unwrap().unwrap(), Ok(60));
    assert_eq!(bench.served(), [vec![1], vec![30]]);
}

#[tokio::test]
async fn an_input_that_breaks_its_batch_fails_alone() {
    let bench = Bench::new(settings());
    let first = bench.busy().await;
    let others: Vec<_> = [2, 13, 3, 4].into_iter().map(|input| bench.submit("a", input)).collect();
    bench.until(|bench| bench.dynamic.shared.turnstile.passed().items == 5).await;
    bench.go(20);
    first.await.unwrap().unwrap().unwrap();
    let mut outcomes = Vec::new();
    for other in others {
        outcomes.push(other.await.unwrap().unwrap());
    }
    let [two, thirteen, three, four] = outcomes.try_into().unwrap();
    assert_eq!([two, three, four], [Ok(4), Ok(6), Ok(8)]);
    assert!(thirteen.unwrap_err().message.contains("13 again"));
    assert_ne!(bench.dynamic.status().health, protocol::Health::Healthy);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_ends_a_request_and_it_is_never_run() {
    let bench = Bench::new(settings());
    let first = bench.busy().await;
    let late = bench.submit_until("a", 2, Some(Duration::from_secs(3)));
    bench.until(|bench| bench.dynamic.status().counters.accepted == 2).await;
    tokio::task::yield_now().await;
    tokio::time::advance(Duration::from_secs(4)).await;
    assert_eq!(late.await.unwrap(), Err(Unserved::Failed(Failure::DeadlineExceeded)));
    bench.go(1);
    first.await.unwrap().unwrap().unwrap();
    assert_eq!(bench.served(), [vec![1]]);
}

#[tokio::test]
async fn a_full_queue_refuses_a_drain_waits_and_a_stop_fails_the_rest() {
    let bench = Bench::new(DynamicSettings { queue_requests: 2, ..settings() });
    let first = bench.busy().await;
    // The next ones pass the turnstile until three batches are full; then the queue fills.
    let mut others = Vec::new();
    for input in 2..=12 {
        others.push(bench.submit("a", input));
        bench.until(|bench| bench.dynamic.shared.turnstile.passed().items as u64 == input).await;
    }
    others.extend((13..=14).map(|input| bench.submit("a", input)));
    bench.until(|bench| bench.dynamic.status().load.queued == 2).await;
    let refused = bench.dynamic.submit(15, Terms::default()).await;
    assert!(matches!(refused, Err(Unserved::Refused(Refusal::QueueFull { queued: 2, .. }))));
    let stopped = tokio::spawn({
        let dynamic = Arc::clone(&bench.dynamic);
        async move { dynamic.stop(Duration::ZERO).await }
    });
    assert_eq!(stopped.await.unwrap(), StopReport { aborted: 14 });
    let refused = bench.dynamic.submit(16, Terms::default()).await;
    assert!(matches!(refused, Err(Unserved::Refused(Refusal::NotReady { .. }))));
    bench.go(1);
    for one in others.into_iter().chain([first]) {
        assert_eq!(one.await.unwrap(), Err(Unserved::Failed(Failure::ShuttingDown)));
    }
    bench.dynamic.drain().await;
}
