//! The exchange explored by loom: the very files `exchange.rs` and `waiters.rs`, with loom's lock in place of std's.
//!
//! Loom runs a test under every order of steps; that all threads wait, which is what a lost wake-up comes to, fails it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use loom::future::block_on;
use loom::thread;

mod sync {
    //! Loom's lock.

    pub(super) use loom::sync::{Mutex, MutexGuard};

    pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().expect("no model panics under the lock")
    }
}

#[expect(clippy::duplicate_mod, reason = "the point is to compile the same file against two kinds of locks")]
#[allow(dead_code, reason = "what has no part in waiting is not used here")]
#[path = "../exchange.rs"]
mod exchange;
#[expect(clippy::duplicate_mod, reason = "the exchange finds it beside itself")]
#[allow(dead_code, reason = "what has no part in waiting is not used here")]
#[path = "../moment.rs"]
mod moment;
#[expect(clippy::duplicate_mod, reason = "the exchange finds it beside itself")]
#[allow(dead_code, reason = "what is exact has no pace")]
#[path = "../pace.rs"]
mod pace;
#[expect(clippy::duplicate_mod, reason = "the exchange finds it beside itself")]
#[path = "../parting.rs"]
mod parting;
#[expect(clippy::duplicate_mod, reason = "the exchange finds it beside itself")]
#[allow(dead_code, reason = "what has no part in waiting is not used here")]
#[path = "../stock.rs"]
mod stock;
#[expect(clippy::duplicate_mod, reason = "the point is to compile the same file against two kinds of locks")]
#[path = "../waiters.rs"]
mod waiters;

#[path = "numbers.rs"]
mod numbers;

use exchange::Exchange;
use moment::Moment;
use numbers::Numbers;

type Shared = Arc<Exchange<Numbers>>;

fn numbers(slots: usize) -> Shared {
    Arc::new(Exchange::new(Numbers { slots, held: VecDeque::new() }))
}

fn now() -> Moment {
    Moment::START
}

fn put(exchange: &Exchange<Numbers>, number: u32) {
    assert_eq!(block_on(exchange.offer(now, Some(number))), None);
}

fn take(exchange: &Exchange<Numbers>) -> u32 {
    block_on(exchange.want(now, None)).unwrap()
}

/// A waker that nobody listens to.
struct Deaf;

impl Wake for Deaf {
    fn wake(self: Arc<Self>) {}
}

/// Polls once and drops the future; what it came to if it was ready.
fn poll_once<F: Future>(future: F) -> Option<F::Output> {
    let mut future = std::pin::pin!(future);
    match future.as_mut().poll(&mut Context::from_waker(&Waker::from(Arc::new(Deaf)))) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

/// Runs `test` in every order of steps in which a thread that could go on is made to wait at most so many times.
fn explore(forced_switches: usize, test: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(forced_switches);
    builder.check(test);
}

/// Two put and two take; whatever the order of steps, all numbers pass, and nobody is left behind.
fn two_and_two(slots: usize, forced_switches: usize) {
    explore(forced_switches, move || {
        let exchange = numbers(slots);
        let putters = [1, 2].map(|number| {
            let exchange = Arc::clone(&exchange);
            thread::spawn(move || put(&exchange, number))
        });
        let taker = thread::spawn({
            let exchange = Arc::clone(&exchange);
            move || take(&exchange)
        });
        let mine = take(&exchange);
        assert_eq!(mine + taker.join().unwrap(), 3);
        putters.into_iter().for_each(|putter| putter.join().unwrap());
        assert_eq!(exchange.waiting(), (0, 0, 0));
    });
}

#[test]
fn two_putters_and_two_takers_with_one_slot() {
    two_and_two(1, 3);
}

#[test]
fn two_putters_and_two_takers_with_two_slots() {
    two_and_two(2, 3);
}

/// Without a bound on switches: every order there is.
#[test]
fn one_putter_and_one_taker_in_every_order() {
    loom::model(|| {
        let exchange = numbers(1);
        let putter = thread::spawn({
            let exchange = Arc::clone(&exchange);
            move || [1, 2, 3].map(|number| put(&exchange, number))
        });
        assert_eq!([(); 3].map(|()| take(&exchange)), [1, 2, 3]);
        putter.join().unwrap();
        assert_eq!(exchange.waiting(), (0, 0, 0));
    });
}

#[test]
fn a_taker_that_goes_away_passes_its_call_on() {
    loom::model(|| {
        let exchange = numbers(1);
        let fickle = thread::spawn({
            let exchange = Arc::clone(&exchange);
            move || poll_once(exchange.want(now, None)).flatten()
        });
        let taker = thread::spawn({
            let exchange = Arc::clone(&exchange);
            move || take(&exchange)
        });
        put(&exchange, 1);
        if let Some(number) = fickle.join().unwrap() {
            put(&exchange, number);
        }
        assert_eq!(taker.join().unwrap(), 1);
        assert_eq!(exchange.waiting(), (0, 0, 0));
    });
}

#[test]
fn a_putter_that_goes_away_leaves_its_place_to_the_next() {
    loom::model(|| {
        let exchange = numbers(1);
        put(&exchange, 1);
        let fickle = thread::spawn({
            let exchange = Arc::clone(&exchange);
            move || poll_once(exchange.offer(now, Some(2))).is_some()
        });
        let patient = thread::spawn({
            let exchange = Arc::clone(&exchange);
            move || put(&exchange, 3)
        });
        let mut last = take(&exchange);
        assert_eq!(last, 1);
        while last != 3 {
            last = take(&exchange);
        }
        fickle.join().unwrap();
        patient.join().unwrap();
        assert!(exchange.waiting() == (0, 0, 0));
    });
}
