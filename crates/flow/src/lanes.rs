//! Places where operations run side by side, one at a time on each, given out in turns.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// So many lanes. Whoever comes first enters first, on the lane that is next in turn, of those that are free: so all of them
/// are used alike, however short operations are. What a lane is, its user knows: a thread, a group of processors, a stream of
/// an accelerator. Clones are the same lanes.
#[derive(Clone, Debug)]
pub struct Lanes {
    permits: Arc<Semaphore>,
    turns: Arc<Mutex<Turns>>,
}

/// Whose turn it is. Pure.
#[derive(Debug)]
struct Turns {
    is_free: Vec<bool>,
    next: usize,
}

impl Turns {
    fn new(count: usize) -> Self {
        Self { is_free: vec![true; count], next: 0 }
    }

    /// The free lane that is next in turn.
    fn take(&mut self) -> Option<usize> {
        let count = self.is_free.len();
        let lane = (0..count).map(|ahead| (self.next + ahead) % count).find(|lane| self.is_free[*lane])?;
        self.is_free[lane] = false;
        self.next = (lane + 1) % count;
        Some(lane)
    }
}

/// The right to run on a lane, which nobody else has until this is dropped.
#[derive(Debug)]
pub struct LanePermit {
    lane: usize,
    turns: Arc<Mutex<Turns>>,
    /// Given back after the lane is free again, so that whoever it is given to finds one.
    _permit: OwnedSemaphorePermit,
}

impl Lanes {
    /// So many, all of them free.
    pub fn new(count: NonZeroUsize) -> Self {
        let permits = Arc::new(Semaphore::new(count.get()));
        Self { permits, turns: Arc::new(Mutex::new(Turns::new(count.get()))) }
    }

    /// How many operations run at once.
    pub fn count(&self) -> usize {
        lock(&self.turns).is_free.len()
    }

    /// How many more could run now.
    pub fn free(&self) -> usize {
        self.permits.available_permits()
    }

    /// Waits for a lane. Dropping the future gives up the place among those who wait.
    pub async fn enter(&self) -> LanePermit {
        match Arc::clone(&self.permits).acquire_owned().await {
            Ok(permit) => self.permit(permit),
            Err(_) => unreachable!("nobody closes the lanes"),
        }
    }

    /// A lane, if one is free and nobody waits for it.
    pub fn try_enter(&self) -> Option<LanePermit> {
        Arc::clone(&self.permits).try_acquire_owned().ok().map(|permit| self.permit(permit))
    }

    fn permit(&self, permit: OwnedSemaphorePermit) -> LanePermit {
        let lane = lock(&self.turns).take();
        let Some(lane) = lane else { unreachable!("there is a free lane for every permit") };
        LanePermit { lane, turns: Arc::clone(&self.turns), _permit: permit }
    }
}

impl LanePermit {
    /// Which of the lanes it is, from 0 on.
    pub fn lane(&self) -> usize {
        self.lane
    }
}

impl Drop for LanePermit {
    fn drop(&mut self) {
        lock(&self.turns).is_free[self.lane] = true;
    }
}

fn lock(turns: &Mutex<Turns>) -> MutexGuard<'_, Turns> {
    turns.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

    use futures::FutureExt;

    use super::*;

    fn lanes(count: usize) -> Lanes {
        Lanes::new(NonZeroUsize::new(count).unwrap())
    }

    #[test]
    fn lanes_are_given_out_in_turns() {
        let lanes = lanes(3);
        let take = || lanes.try_enter().unwrap();
        let short: Vec<usize> = (0..7).map(|_| take().lane()).collect();
        assert_eq!(short, [0, 1, 2, 0, 1, 2, 0], "an operation that has ended does not keep its lane first");
        let (one, two, zero) = (take(), take(), take());
        assert_eq!((one.lane(), two.lane(), zero.lane(), lanes.free()), (1, 2, 0, 0));
        assert!(lanes.try_enter().is_none());
        drop(two);
        assert_eq!(take().lane(), 2, "those in use are passed over");
        drop((one, zero));
        assert_eq!(take().lane(), 0);
        assert_eq!((lanes.free(), lanes.count()), (3, 3));
    }

    #[test]
    fn whoever_waits_enters_in_order_and_whoever_leaves_takes_nothing_along() {
        let lanes = lanes(1);
        let held = lanes.try_enter().unwrap();
        let (mut first, mut second) = (Box::pin(lanes.enter()), Box::pin(lanes.enter()));
        assert!((&mut first).now_or_never().is_none() && (&mut second).now_or_never().is_none());
        drop(held);
        assert!(lanes.try_enter().is_none(), "nobody passes those who wait");
        assert!((&mut second).now_or_never().is_none());
        drop(first);
        let second = second.now_or_never().unwrap();
        assert_eq!((second.lane(), lanes.free()), (0, 0));
        drop(second);
        assert_eq!(lanes.free(), 1);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn a_lane_has_one_operation_at_a_time_whoever_comes() {
        let lanes = lanes(3);
        let (taken, ran) = (Arc::new([const { AtomicBool::new(false) }; 3]), Arc::new(AtomicUsize::new(0)));
        let tasks = (0..64).map(|number| {
            let (lanes, taken, ran) = (lanes.clone(), Arc::clone(&taken), Arc::clone(&ran));
            tokio::spawn(async move {
                for round in 0..50 {
                    if (number + round) % 7 == 0 {
                        // Somebody who does not wait for long.
                        drop(lanes.enter().now_or_never());
                        continue;
                    }
                    let permit = lanes.enter().await;
                    assert!(!taken[permit.lane()].swap(true, SeqCst), "two on lane {}", permit.lane());
                    tokio::task::yield_now().await;
                    taken[permit.lane()].store(false, SeqCst);
                    ran.fetch_add(1, SeqCst);
                }
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.unwrap();
        }
        let left_early =
            (0..64).flat_map(|number| (0..50).map(move |round| number + round)).filter(|sum| sum % 7 == 0);
        assert_eq!((ran.load(SeqCst), lanes.free()), (64 * 50 - left_early.count(), 3));
    }
}
