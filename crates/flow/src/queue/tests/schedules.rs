//! Tasks in every order that a seed comes up with: one that was woken is polled, now and then one is dropped, and when
//! none was woken time passes. If nothing moves then, a wake-up was lost.
//!
//! All that tasks share lies under one lock which each poll takes once or twice, so orders of polls are nearly all the
//! orders there are; what happens between the steps of one poll is explored in `model.rs`.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Wake, Waker};

use super::*;
use crate::Random;

const SCHEDULES: u64 = 100_000;

/// Whether a task may go on.
struct Awake(AtomicBool);

impl Wake for Awake {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Relaxed);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Putter,
    Taker,
}

struct Task {
    role: Role,
    future: Pin<Box<dyn Future<Output = ()>>>,
    awake: Arc<Awake>,
}

impl Task {
    fn new(role: Role, future: impl Future<Output = ()> + 'static) -> Self {
        Self { role, future: Box::pin(future), awake: Arc::new(Awake(AtomicBool::new(true))) }
    }

    fn is_awake(&self) -> bool {
        self.awake.0.load(Relaxed)
    }

    /// Whether it is over.
    fn poll(&mut self) -> bool {
        self.awake.0.store(false, Relaxed);
        let waker = Waker::from(Arc::clone(&self.awake));
        self.future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready()
    }
}

#[derive(Clone)]
struct World {
    queue: Queue<u32>,
    random: Rc<RefCell<Random>>,
    done: Rc<RefCell<BTreeSet<TicketId>>>,
}

impl World {
    fn below(&self, end: u64) -> u64 {
        self.random.borrow_mut().below(end)
    }

    async fn putter(self) {
        for item in 0..2 {
            let ticket = Ticket::default().level(self.below(3) as u8).cost(self.below(4));
            match self.below(4) {
                0 => drop(self.queue.put_many([(item, ticket.clone()), (item, ticket)]).await),
                1 => drop(self.queue.try_put(item, ticket)),
                _ => drop(self.queue.put(item, ticket).await),
            }
        }
    }

    async fn taker(self) {
        loop {
            let leases = match self.below(4) {
                0 => self.queue.take_many(UpTo::items(2).cost(3)).await,
                1 => match self.queue.pop().await {
                    None => return,
                    Some(taken) => {
                        self.finish(taken.id());
                        continue;
                    }
                },
                _ => self.queue.take().await.into_iter().collect(),
            };
            if leases.is_empty() {
                return;
            }
            for lease in leases {
                self.end(lease).await;
            }
        }
    }

    async fn end(&self, lease: Lease<u32>) {
        let id = lease.id();
        match self.below(6) {
            0 => drop(lease),
            1 => drop(lease.nack(ms(self.below(2) * 50)).await),
            2 => std::mem::forget(lease),
            _ => {
                if lease.ack().await.is_ok() {
                    self.finish(id);
                }
            }
        }
    }

    fn finish(&self, id: TicketId) {
        assert!(self.done.borrow_mut().insert(id), "{id:?} was done twice");
    }
}

/// The tasks of one schedule until none is left.
async fn run(seed: u64) {
    let random = Rc::new(RefCell::new(Random::seeded(seed)));
    let capacity = Capacity::items(1 + random.borrow_mut().below(3) as usize).cost(6);
    let queue = Queue::builder(capacity).lease(ms(100)).max_attempts(times(5)).build();
    let world = World { queue: queue.clone(), random, done: Rc::default() };
    let mut tasks: Vec<Task> = Vec::new();
    for _ in 0..2 + world.below(2) {
        tasks.push(Task::new(Role::Putter, world.clone().putter()));
        tasks.push(Task::new(Role::Taker, world.clone().taker()));
    }
    let mut idle = 0;
    while !tasks.is_empty() {
        let awake: Vec<usize> = (0..tasks.len()).filter(|task| tasks[*task].is_awake()).collect();
        if world.below(40) == 0 {
            let dropped = tasks.swap_remove(world.below(tasks.len() as u64) as usize);
            if dropped.role == Role::Taker {
                tasks.push(Task::new(Role::Taker, world.clone().taker()));
            }
        } else if awake.is_empty() {
            if tasks.iter().all(|task| task.role == Role::Taker) {
                queue.close();
            }
            advance(ms(50)).await;
            drop(queue.stats());
            idle += 1;
            assert!(idle < 200, "seed {seed}: nobody is woken although {:?}", queue.stats());
        } else {
            let task = awake[world.below(awake.len() as u64) as usize];
            if tasks[task].poll() {
                drop(tasks.swap_remove(task));
            }
        }
    }
    let totals = queue.stats().totals;
    assert_eq!(totals.accepted, totals.done + totals.dead, "seed {seed}");
    assert_eq!(totals.done, world.done.borrow().len() as u64, "seed {seed}");
    assert_at_rest(&queue);
}

#[tokio::test(start_paused = true)]
async fn no_schedule_loses_an_item_or_a_wake_up() {
    for seed in 0..SCHEDULES {
        run(seed).await;
    }
}
