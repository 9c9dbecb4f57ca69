//! Where those who put meet those who take: one lock, two lines of waiting tasks, and no idea of what is exchanged.
//!
//! - Who puts and finds no room leaves its offer in the line. Whoever makes room accepts the offers at the head of the
//!   line on behalf of their owners and wakes those afterwards, so putters are served in the order in which they came
//!   and room never lies idle until a task has woken up.
//! - Who takes and finds nothing waits with its appetite. Takers are called only while the appetite of those who were
//!   called is less than what is on hand, so one item wakes one task. Who is called takes for itself when it runs; a
//!   called taker that goes away, or that finds nothing because another was faster, hands its call back.
//! - Everything is decided under the lock, and nobody is woken under it.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use super::moment::Moment;
use super::pace::{Keeper, Pace};
use super::parting::Parting;
use super::stock::{Progress, Stock};
use super::sync::{Mutex, MutexGuard, lock};
use super::waiters::Waiters;

struct Putter<O> {
    offer: O,
    is_finished: bool,
    later: Option<Moment>,
}

struct State<S: Stock> {
    stock: S,
    putters: Waiters<Putter<S::Offer>>,
    /// Putters that wait for their own time.
    later: BTreeSet<(Moment, usize)>,
    takers: Waiters<u32>,
    /// The appetite of the takers that were called and have not looked yet.
    called_for: u64,
    pace: Pace,
    /// The task that comes back when something falls due, and when it will.
    alarm: Option<Waker>,
    alarm_at: Moment,
}

pub(super) struct Exchange<S: Stock> {
    state: Mutex<State<S>>,
}

impl<S: Stock> State<S> {
    /// Whether there may be someone to serve, or something to do outside of the lock.
    #[inline]
    fn has_to_serve(&self) -> bool {
        self.putters.first().is_some()
            || self.takers.first().is_some()
            || self.stock.has_aftermath()
            || (self.alarm.is_some() && self.due() < self.alarm_at)
    }

    /// Serves whom it can, after anything has changed.
    fn serve(&mut self) -> Parting<S::Aftermath> {
        let mut parting = Parting::default();
        if self.putters.first().is_some() {
            self.accept_waiting(&mut parting);
        }
        if self.takers.first().is_some() {
            self.call_takers(&mut parting);
        }
        self.set_alarm(&mut parting);
        parting.aftermath = self.stock.aftermath();
        parting
    }

    fn accept_waiting(&mut self, parting: &mut Parting<S::Aftermath>) {
        while let Some(name) = self.putters.first() {
            let putter = self.putters.what(name);
            match self.stock.accept(&mut putter.offer) {
                Progress::Finished => {
                    putter.is_finished = true;
                    self.putters.step_aside(name);
                    parting.wake(self.putters.waker(name));
                }
                Progress::Later(due) => self.postpone(name, due),
                Progress::Blocked => return,
            }
        }
    }

    fn call_takers(&mut self, parting: &mut Parting<S::Aftermath>) {
        let on_hand = self.stock.on_hand();
        while self.called_for < on_hand
            && let Some(name) = self.takers.first()
        {
            self.called_for += u64::from(*self.takers.what(name));
            self.takers.step_aside(name);
            parting.wake(self.takers.waker(name));
        }
    }

    /// When something falls due, in the stock or in the lines.
    fn due(&self) -> Moment {
        let later = self.later.first().map_or(Moment::NEVER, |(due, _)| *due);
        later.min(self.stock.due()).min(self.pace.tick())
    }

    fn set_alarm(&mut self, parting: &mut Parting<S::Aftermath>) {
        if self.alarm.is_some() {
            let due = self.due();
            if due < self.alarm_at {
                self.alarm_at = due;
                self.alarm.take().into_iter().for_each(|alarm| parting.wake(alarm));
            }
        }
    }

    fn postpone(&mut self, name: usize, due: Moment) {
        self.putters.step_aside(name);
        self.putters.what(name).later = Some(due);
        self.later.insert((due, name));
    }

    /// The time, as exactly as it matters.
    #[inline]
    fn time(&mut self, clock: impl Fn() -> Moment) -> Moment {
        if self.stock.is_exact() || !self.later.is_empty() {
            return clock();
        }
        let keeper = if self.alarm.is_some() { Keeper::Listens } else { Keeper::Away };
        self.pace.read(clock, keeper)
    }

    /// Moves time on: what was due in the stock happens, and putters whose time has come stand in line again.
    #[inline]
    fn advance(&mut self, now: Moment) {
        self.stock.advance(now);
        while let Some(&(due, name)) = self.later.first()
            && due <= now
        {
            self.later.pop_first();
            self.putters.what(name).later = None;
            self.putters.rejoin_last(name);
        }
    }

    fn poll_offer(&mut self, place: &mut OfferPlace<S::Offer>, waker: &Waker) -> Option<S::Offer> {
        match place {
            OfferPlace::Here(here) => {
                let mut offer = here.take()?;
                let is_first = self.putters.first().is_none();
                let progress = if is_first { self.stock.accept(&mut offer) } else { Progress::Blocked };
                if matches!(progress, Progress::Finished) {
                    return Some(offer);
                }
                let name = self.putters.join(Putter { offer, is_finished: false, later: None }, waker);
                if let Progress::Later(due) = progress {
                    self.postpone(name, due);
                }
                *place = OfferPlace::There(name);
                None
            }
            OfferPlace::There(name) if self.putters.what(*name).is_finished => {
                let putter = self.putters.leave(*name);
                *place = OfferPlace::Here(None);
                Some(putter.offer)
            }
            OfferPlace::There(name) => {
                self.putters.listen(*name, waker);
                None
            }
        }
    }

    fn retract(&mut self, name: usize) -> S::Offer {
        let Putter { offer, later, .. } = self.putters.leave(name);
        if let Some(due) = later {
            self.later.remove(&(due, name));
        }
        offer
    }

    fn poll_want(&mut self, want: &mut S::Want, place: &mut Option<usize>, waker: &Waker) -> bool {
        let is_filled = self.stock.fill(want);
        if is_filled {
            place.take().into_iter().for_each(|name| self.withdraw_want(name));
            return true;
        }
        match *place {
            None => *place = Some(self.takers.join(S::appetite(want), waker)),
            Some(name) => {
                if !self.takers.is_in_line(name) {
                    self.called_for -= u64::from(*self.takers.what(name));
                    self.takers.rejoin_first(name);
                }
                self.takers.listen(name, waker);
            }
        }
        false
    }

    fn withdraw_want(&mut self, name: usize) {
        let is_called = !self.takers.is_in_line(name);
        let appetite = self.takers.leave(name);
        if is_called {
            self.called_for -= u64::from(appetite);
        }
    }
}

impl<S: Stock> Exchange<S> {
    pub(super) fn new(stock: S) -> Self {
        let state = State {
            stock,
            putters: Waiters::new(),
            later: BTreeSet::new(),
            takers: Waiters::new(),
            called_for: 0,
            pace: Pace::new(),
            alarm: None,
            alarm_at: Moment::NEVER,
        };
        Self { state: Mutex::new(state) }
    }

    /// Does something under the lock, and then serves whom it can.
    #[inline]
    fn act<R>(&self, now: Moment, act: impl FnOnce(&mut State<S>) -> R) -> R {
        let mut state = self.lock();
        state.pace.set(now);
        Self::act_on(state, now, act)
    }

    /// The same, at a time that is only as exact as it matters.
    #[inline]
    fn act_at_pace<R>(&self, clock: impl Fn() -> Moment, act: impl FnOnce(&mut State<S>) -> R) -> R {
        let mut state = self.lock();
        let now = state.time(clock);
        Self::act_on(state, now, act)
    }

    #[inline]
    fn act_on<R>(
        mut state: MutexGuard<'_, State<S>>,
        now: Moment,
        act: impl FnOnce(&mut State<S>) -> R,
    ) -> R {
        state.advance(now);
        let result = act(&mut state);
        if state.has_to_serve() {
            let parting = state.serve();
            drop(state);
            parting.go();
        }
        result
    }

    #[inline]
    fn lock(&self) -> MutexGuard<'_, State<S>> {
        lock(&self.state)
    }

    /// Reads or changes the stock.
    pub(super) fn with<R>(&self, now: Moment, act: impl FnOnce(&mut S) -> R) -> R {
        self.act(now, |state| act(&mut state.stock))
    }

    /// The same, at a time that is only as exact as it matters.
    #[inline]
    pub(super) fn with_at_pace<R>(&self, clock: impl Fn() -> Moment, act: impl FnOnce(&mut S) -> R) -> R {
        self.act_at_pace(clock, |state| act(&mut state.stock))
    }

    /// Changes the stock, unless a putter waits.
    #[inline]
    pub(super) fn unless_someone_waits<R>(
        &self,
        clock: impl Fn() -> Moment,
        act: impl FnOnce(&mut S) -> R,
    ) -> Option<R> {
        self.act_at_pace(clock, |state| state.putters.first().is_none().then(|| act(&mut state.stock)))
    }

    /// Answers an offer that will not wait.
    pub(super) fn offer_or_turn_away(&self, now: Moment, offer: &mut S::Offer) {
        self.act(now, |state| match state.putters.first() {
            None => drop(state.stock.accept(offer)),
            Some(_) => state.stock.turn_away(offer),
        });
    }

    /// Hands out what there is, without waiting; whether that is all the taker will get.
    pub(super) fn want_at_once(&self, clock: impl Fn() -> Moment, want: &mut S::Want) -> bool {
        self.act_at_pace(clock, |state| state.stock.fill(want))
    }

    /// Brings an offer and waits for its answer.
    pub(super) fn offer<C: Fn() -> Moment>(&self, clock: C, offer: S::Offer) -> Offering<'_, S, C> {
        Offering { exchange: self, clock, place: OfferPlace::Here(Some(offer)) }
    }

    /// Waits until there is something for the want.
    pub(super) fn want<C: Fn() -> Moment>(&self, clock: C, want: S::Want) -> Wanting<'_, S, C> {
        Wanting { exchange: self, clock, want: Some(want), place: None }
    }

    /// Lets happen what is due, and answers when to come back; the waker is woken if that becomes earlier.
    pub(super) fn watch(&self, now: Moment, waker: &Waker) -> Moment {
        self.act(now, |state| {
            state.alarm = None;
            state.pace.come_by(now);
        });
        let mut state = self.lock();
        state.alarm_at = state.due();
        state.alarm = Some(waker.clone());
        state.alarm_at
    }

    /// The task that would come back, so that it can learn that the exchange ends.
    pub(super) fn take_alarm(&self) -> Option<Waker> {
        self.lock().alarm.take()
    }

    /// How many tasks wait to put and to take, and how much was called for.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> (usize, usize, u64) {
        let state = self.lock();
        (state.putters.known(), state.takers.known(), state.called_for)
    }
}

enum OfferPlace<O> {
    /// Not yet brought; `None` once the answer has been given.
    Here(Option<O>),
    /// In the line, under that name.
    There(usize),
}

/// Waits for the answer to an offer. Dropped before, it takes the offer back, unless it was accepted already.
pub(super) struct Offering<'a, S: Stock, C> {
    exchange: &'a Exchange<S>,
    clock: C,
    place: OfferPlace<S::Offer>,
}

// Nothing in them is ever pinned: an offer is moved into the line and out again.
impl<S: Stock, C> Unpin for Offering<'_, S, C> {}
impl<S: Stock, C> Unpin for Wanting<'_, S, C> {}

impl<S: Stock, C: Fn() -> Moment> Future for Offering<'_, S, C> {
    type Output = S::Offer;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<S::Offer> {
        let Self { exchange, clock, place } = self.get_mut();
        let answered = exchange.act(clock(), |state| state.poll_offer(place, context.waker()));
        answered.map_or(Poll::Pending, Poll::Ready)
    }
}

impl<S: Stock, C> Offering<'_, S, C> {
    /// Takes the offer back, answered or not.
    pub(super) fn retract(&mut self) -> Option<S::Offer> {
        match std::mem::replace(&mut self.place, OfferPlace::Here(None)) {
            OfferPlace::Here(offer) => offer,
            OfferPlace::There(name) => Some(self.exchange.act(Moment::START, |state| state.retract(name))),
        }
    }
}

impl<S: Stock, C> Drop for Offering<'_, S, C> {
    fn drop(&mut self) {
        if let OfferPlace::There(name) = self.place {
            let abandon = |state: &mut State<S>| {
                let offer = state.retract(name);
                state.stock.abandon(offer)
            };
            drop(self.exchange.act(Moment::START, abandon));
        }
    }
}

/// Waits for something to take. Dropped before, it passes its call on.
pub(super) struct Wanting<'a, S: Stock, C> {
    exchange: &'a Exchange<S>,
    clock: C,
    want: Option<S::Want>,
    place: Option<usize>,
}

impl<S: Stock, C: Fn() -> Moment> Future for Wanting<'_, S, C> {
    type Output = S::Want;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<S::Want> {
        let Self { exchange, clock, want, place } = self.get_mut();
        let Some(asked) = want else { return Poll::Pending };
        let is_filled = exchange.act(clock(), |state| state.poll_want(asked, place, context.waker()));
        if is_filled { want.take().map_or(Poll::Pending, Poll::Ready) } else { Poll::Pending }
    }
}

impl<S: Stock, C> Drop for Wanting<'_, S, C> {
    fn drop(&mut self) {
        if let Some(name) = self.place {
            self.exchange.act(Moment::START, |state| state.withdraw_want(name));
        }
    }
}
