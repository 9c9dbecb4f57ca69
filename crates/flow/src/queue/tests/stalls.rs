//! Takers that stall past their leases, forget to say that they live, acknowledge late or never, and clocks that jump.

use std::collections::HashMap;

use tokio::time::timeout;

use super::*;
use crate::Random;

const RUNS: u64 = 10_000;
const ITEMS: usize = 3;
const MAX_ATTEMPTS: u32 = 4;

/// What the takers did to each item.
#[derive(Default)]
struct Effects {
    /// Acknowledgements that counted, by item.
    done: HashMap<usize, u32>,
    /// How often each was handed out.
    attempts: HashMap<usize, u32>,
    /// Attempts that had to be the last, by item.
    fatal: HashMap<usize, Cause>,
}

/// One taker's way with one item.
async fn serve(lease: Lease<usize>, effects: &Mutex<Effects>, random: &Mutex<Random>) {
    let item = *lease;
    let attempt = lease.attempt();
    {
        let mut effects = effects.lock().unwrap();
        let count = effects.attempts.entry(item).or_default();
        *count += 1;
        assert_eq!(attempt, *count, "attempts are counted one by one");
        assert!(
            attempt <= MAX_ATTEMPTS
                && !effects.done.contains_key(&item)
                && !effects.fatal.contains_key(&item)
        );
    }
    let (way, pause) = {
        let mut random = random.lock().unwrap();
        (random.below(10), ms(random.below(250)))
    };
    let end = match way {
        0 => return drop(lease),
        1 => return std::mem::forget(lease),
        2 => lease.nack(pause).await,
        3 => {
            let cause = Cause::Verdict("poison".to_owned());
            let end = lease.dead_letter("poison").await;
            end.inspect(|()| drop(effects.lock().unwrap().fatal.insert(item, cause)))
        }
        4 => {
            for _ in 0..3 {
                sleep(ms(60)).await;
                drop(lease.extend(ms(100)));
            }
            acknowledge(lease, item, effects).await
        }
        // A heartbeat that goes on to the end, and one that is lost while the work goes on.
        5 => {
            let worked = lease.with_heartbeat(sleep(2 * pause)).await;
            match worked {
                Ok(()) => acknowledge(lease, item, effects).await,
                Err(lost) => Err(lost),
            }
        }
        6 => {
            drop(timeout(pause, lease.with_heartbeat(sleep(2 * pause))).await);
            sleep(pause).await;
            acknowledge(lease, item, effects).await
        }
        _ => {
            sleep(pause).await;
            acknowledge(lease, item, effects).await
        }
    };
    if let Err(error) = end {
        assert!(matches!(error, LeaseError::Ended { attempt: ended, .. } if ended == attempt));
    }
}

async fn acknowledge(lease: Lease<usize>, item: usize, effects: &Mutex<Effects>) -> Result<(), LeaseError> {
    lease.ack().await?;
    *effects.lock().unwrap().done.entry(item).or_default() += 1;
    Ok(())
}

async fn run(seed: u64) {
    let queue = Queue::builder(Capacity::items(9))
        .policy(fifo())
        .lease(ms(100))
        .max_attempts(times(MAX_ATTEMPTS))
        .dedupe(NonZeroUsize::new(99).unwrap(), Duration::from_secs(3600))
        .build();
    let effects = Arc::new(Mutex::new(Effects::default()));
    let random = Arc::new(Mutex::new(Random::seeded(seed)));
    for item in 0..ITEMS {
        for _ in 0..2 {
            queue.put(item, Ticket::default().key(item.to_string())).await.unwrap();
        }
    }
    queue.close();
    let takers = [0, 1].map(|_| {
        let (queue, effects, random) = (queue.clone(), Arc::clone(&effects), Arc::clone(&random));
        tokio::spawn(async move {
            while let Some(lease) = queue.take().await {
                serve(lease, &effects, &random).await;
            }
        })
    });
    for _ in 0..3 {
        let jump = ms(random.lock().unwrap().below(400));
        let_others_run().await;
        advance(jump).await;
    }
    for taker in takers {
        taker.await.unwrap();
    }
    let effects = effects.lock().unwrap();
    let dead: HashMap<_, _> = queue
        .dead_letters()
        .list(|letter| (letter.item, (letter.cause().clone(), letter.attempts())))
        .into_iter()
        .collect();
    for item in 0..ITEMS {
        match dead.get(&item) {
            None => assert_eq!(effects.done.get(&item), Some(&1), "seed {seed}: one effect for each key"),
            Some((cause, attempts)) => {
                assert!(!effects.done.contains_key(&item), "seed {seed}");
                assert_eq!(*attempts, effects.attempts[&item], "seed {seed}");
                match effects.fatal.get(&item) {
                    Some(verdict) => assert_eq!(cause, verdict, "seed {seed}"),
                    None => assert_eq!((cause, *attempts), (&Cause::Attempts, MAX_ATTEMPTS), "seed {seed}"),
                }
            }
        }
    }
    assert_at_rest(&queue);
}

#[tokio::test(start_paused = true)]
async fn every_key_takes_effect_once_or_is_given_up_with_the_cause() {
    for seed in 0..RUNS {
        run(seed).await;
    }
}
