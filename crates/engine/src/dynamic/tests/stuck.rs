//! A model that does not come back from a batch.

use std::sync::mpsc::channel;

use protocol::Health;

use super::*;

const AFTER: Duration = Duration::from_secs(5);

/// Far more than threads need to get on, and few enough to end.
const ROUNDS: u32 = 5_000_000;

/// A bench whose model is loaded again as `load` says, and as often as a number tells that comes with the bench.
fn bench(turns: &Turns, load: impl Fn() -> Result<Doubling, String> + Send + Sync + 'static) -> Bench {
    let care = Care { turns: turns.clone(), revive: Some(Revive::new(load)) };
    Bench::with(DynamicSettings { restart_after: Some(AFTER), ..settings() }, care)
}

/// A model that runs whatever it is given, and notes nothing.
fn willing() -> Doubling {
    // Without anybody who could give the word, it waits for none.
    Doubling { go: channel().1, batches: Arc::default() }
}

impl Bench {
    /// Lets time pass until something is so. The threads of models take real time, however little.
    async fn later(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        for _ in 0..ROUNDS {
            if is_so(self) {
                return;
            }
            tokio::time::advance(AFTER / 8).await;
            std::thread::yield_now();
        }
        panic!("after {ROUNDS} rounds, still not: {what}; {:?}", self.dynamic.status());
    }

    fn restarts(&self) -> u64 {
        self.dynamic.status().counters.restarts
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_does_not_come_back_fails_alone_and_what_waits_is_served() {
    let turns = Turns::default();
    let bench = bench(&turns, || Ok(willing()));
    let other = turns.seat();
    let hung = bench.busy().await;
    let waiting: Vec<_> = (2..=30).filter(|input| ![7, 13].contains(input)).collect();
    let waiting: Vec<_> = waiting.into_iter().map(|input| (input, bench.submit("a", input))).collect();
    bench.later("the model is loaded again", |bench| bench.restarts() == 1).await;
    let error = hung.await.unwrap().unwrap().unwrap_err();
    assert!(error.message.contains("did not come back") && error.message.contains("5s"), "{error}");
    for (input, outcome) in waiting {
        assert_eq!(outcome.await.unwrap().unwrap(), Ok(2 * input));
    }
    let status = bench.dynamic.status();
    assert!(matches!(&status.health, Health::Degraded(why) if why[0].contains("loaded again")), "{status:?}");
    assert_eq!((status.load.queued, status.load.running, status.counters.accepted), (0, 0, 28));
    // It keeps nobody from the compute threads, and what has nothing to do does not hang.
    drop(other.turn());
    tokio::time::advance(20 * AFTER).await;
    tokio::task::yield_now().await;
    assert_eq!(bench.restarts(), 1);
    // When it comes back after all, it is dropped, and its batch is not served a second time.
    bench.go(1);
    bench.later("the old model is gone", |bench| bench.go.send(()).is_err()).await;
    assert_eq!(bench.submit("a", 40).await.unwrap().unwrap(), Ok(80));
    assert_eq!((bench.served(), bench.restarts()), (vec![vec![1]], 1));
}

#[tokio::test(start_paused = true)]
async fn to_wait_for_a_turn_is_not_to_hang() {
    let turns = Turns::default();
    let bench = bench(&turns, || Err("it is not to be".to_owned()));
    let other = turns.seat();
    let began = other.begin();
    let waits = bench.busy().await;
    for _ in 0..100 {
        tokio::time::advance(AFTER).await;
        std::thread::yield_now();
    }
    assert_eq!(bench.restarts(), 0);
    other.end(began);
    other.rest();
    bench.go(1);
    assert_eq!(waits.await.unwrap().unwrap(), Ok(2));
}

#[tokio::test(start_paused = true)]
async fn a_model_that_cannot_be_loaded_again_leaves_nobody_waiting() {
    let bench = bench(&Turns::default(), || Err("its files are gone".to_owned()));
    let hung = bench.busy().await;
    let waiting: Vec<_> = (20..40).map(|input| bench.submit("a", input)).collect();
    bench.later("the model is lost", |bench| bench.dynamic.status().phase == Phase::Stopped).await;
    assert!(hung.await.unwrap().unwrap().unwrap_err().message.contains("did not come back"));
    for outcome in waiting {
        let error = outcome.await.unwrap().unwrap().unwrap_err();
        assert!(error.message.contains("cannot be loaded again: its files are gone"), "{error}");
    }
    assert!(matches!(bench.dynamic.status().health, Health::Unhealthy(_)));
    let refused = bench.dynamic.submit(50, Terms::default()).await;
    assert!(matches!(refused, Err(Unserved::Refused(Refusal::NotReady { .. }))));
}
