//! The exchange in every order that there is: two who put, two who take, and a fifth who may go away at any time.
//!
//! A poll, and the dropping of a future, take the exchange's lock once, and wake others after they have let go of it. So
//! whatever threads do is some order of polls, of drops, and of wake-ups that arrive some time after they were sent;
//! here each such order is played once, to its end. That nobody is awake and somebody waits is a lost wake-up.
//! What happens inside of one step is explored by loom, in `model.rs`.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

#[expect(clippy::duplicate_mod, reason = "the same stock for two kinds of locks")]
#[path = "numbers.rs"]
mod numbers;

use crate::queue::exchange::Exchange;
use crate::queue::moment::{self, Moment};
use crate::queue::stock;
use numbers::Numbers;

/// Choices that are made the first time as they come, and after that in every other way.
#[derive(Default)]
struct Choices {
    made: Vec<(usize, usize)>,
    next: usize,
}

impl Choices {
    /// One of so many.
    fn choose(&mut self, of: usize) -> usize {
        if self.next == self.made.len() {
            self.made.push((0, of));
        }
        let (chosen, before) = self.made[self.next];
        assert_eq!(before, of, "the same choices lead to the same place");
        self.next += 1;
        chosen
    }

    /// Whether there is another way.
    fn advance(&mut self) -> bool {
        self.next = 0;
        while let Some((chosen, of)) = self.made.pop() {
            if chosen + 1 < of {
                self.made.push((chosen + 1, of));
                return true;
            }
        }
        false
    }
}

/// Wake-ups on their way, by task.
type Letters = Arc<Mutex<Vec<usize>>>;

struct Letter {
    task: usize,
    letters: Letters,
}

impl Wake for Letter {
    fn wake(self: Arc<Self>) {
        self.letters.lock().unwrap().push(self.task);
    }
}

type Moved<'a> = Pin<Box<dyn Future<Output = Option<u32>> + 'a>>;

struct Task<'a> {
    /// `None` once it is over.
    future: Option<Moved<'a>>,
    is_awake: bool,
}

/// What happens next.
#[derive(Clone, Copy)]
enum Step {
    Poll(usize),
    Arrive(usize),
    GoAway,
}

struct Scene<'a> {
    exchange: &'a Exchange<Numbers>,
    tasks: Vec<Task<'a>>,
    letters: Letters,
    fickle: Option<usize>,
    taken: Vec<u32>,
    /// Putters, and takers, that do it once more when they are done.
    again: (u32, u32),
}

fn now() -> Moment {
    Moment::START
}

impl<'a> Scene<'a> {
    fn put(&mut self, number: u32) {
        let offer = self.exchange.offer(now, Some(number));
        self.add(Box::pin(offer));
    }

    fn take(&mut self) {
        let want = self.exchange.want(now, None);
        self.add(Box::pin(want));
    }

    fn add(&mut self, future: Moved<'a>) {
        self.tasks.push(Task { future: Some(future), is_awake: true });
    }

    /// All that can happen next.
    fn steps(&self) -> Vec<Step> {
        let awake = |task: &usize| self.tasks[*task].future.is_some() && self.tasks[*task].is_awake;
        let letters = self.letters.lock().unwrap().len();
        let fickle = self.fickle.filter(|task| self.tasks[*task].future.is_some());
        let polls = (0..self.tasks.len()).filter(awake).map(Step::Poll);
        polls.chain((0..letters).map(Step::Arrive)).chain(fickle.map(|_| Step::GoAway)).collect()
    }

    fn make(&mut self, step: Step) {
        match step {
            Step::Poll(task) => self.poll(task),
            Step::Arrive(letter) => {
                let task = self.letters.lock().unwrap().remove(letter);
                self.tasks[task].is_awake = true;
            }
            Step::GoAway => {
                if let Some(task) = self.fickle.take() {
                    self.tasks[task].future = None;
                }
            }
        }
    }

    fn poll(&mut self, number: usize) {
        let task = &mut self.tasks[number];
        task.is_awake = false;
        let waker = Waker::from(Arc::new(Letter { task: number, letters: Arc::clone(&self.letters) }));
        let Some(future) = &mut task.future else { return };
        if let Poll::Ready(moved) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            task.future = None;
            self.taken.extend(moved);
            match moved {
                // What the fickle one took is put again, so that there is enough for those who stay.
                Some(taken) if self.fickle == Some(number) => self.put(taken),
                Some(_) if self.again.1 > 0 => {
                    self.again.1 -= 1;
                    self.take();
                }
                None if self.again.0 > 0 && self.fickle != Some(number) => {
                    self.again.0 -= 1;
                    self.put(4);
                }
                _ => {}
            }
        }
    }
}

/// Whether the fifth is one who puts or one who takes, or is not there.
#[derive(Clone, Copy, Debug)]
enum Fifth {
    None,
    Puts,
    Takes,
}

/// Plays one order to its end.
fn play(choices: &mut Choices, slots: usize, fifth: Fifth, again: u32) {
    let exchange = Exchange::new(Numbers { slots, held: VecDeque::new() });
    let (tasks, letters) = (Vec::new(), Letters::default());
    let mut scene =
        Scene { exchange: &exchange, tasks, letters, fickle: None, taken: Vec::new(), again: (again, again) };
    match fifth {
        Fifth::None => {}
        Fifth::Puts => scene.put(3),
        Fifth::Takes => scene.take(),
    }
    scene.fickle = (!scene.tasks.is_empty()).then_some(0);
    scene.put(1);
    scene.put(2);
    scene.take();
    scene.take();
    loop {
        let steps = scene.steps();
        if steps.is_empty() {
            break;
        }
        let step = steps[choices.choose(steps.len())];
        scene.make(step);
    }
    let waiting = scene.tasks.iter().filter(|task| task.future.is_some()).count();
    // A third number that got in may keep a putter out: then as many were taken as were asked for.
    let is_full = matches!(fifth, Fifth::Puts) && scene.taken.len() == 2 + again as usize;
    assert!(
        waiting == 0 || is_full,
        "{slots} slots, {fifth:?}: nobody is woken and {waiting} wait: {:?}",
        choices.made
    );
    drop(scene);
    assert_eq!(exchange.waiting(), (0, 0, 0));
}

/// How many orders there are, each of them played.
fn every_order(slots: usize, fifth: Fifth, again: u32) -> u64 {
    let (mut choices, mut orders) = (Choices::default(), 1);
    play(&mut choices, slots, fifth, again);
    while choices.advance() {
        play(&mut choices, slots, fifth, again);
        orders += 1;
    }
    orders
}

#[test]
fn no_order_of_two_putters_and_two_takers_loses_a_wake_up() {
    for slots in [1, 2] {
        for (fifth, again) in [(Fifth::None, 0), (Fifth::None, 1), (Fifth::Puts, 0), (Fifth::Takes, 0)] {
            let orders = every_order(slots, fifth, again);
            assert!(orders >= 100, "{slots} slots, {fifth:?}: only {orders} orders");
        }
    }
}
