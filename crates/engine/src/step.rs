//! One step of the engine: admit, plan, look, forward, sample, emit.
//!
//! The tower and the model are run by whoever drives the loop, behind [`RunLoop::begin_step`]: [`RunLoop::look`] and
//! [`RunLoop::saw`] come before and after the tower, [`RunLoop::gather`] and [`RunLoop::settle`] before and after the model,
//! and [`RunLoop::emit`] when all of the plan is computed.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use models::Outputs;
use models::vision::Tower;
use protocol::Failure;

use crate::compute::{Outcome, Runner};
use crate::plan::{self, Admission, Work};
use crate::request::Request;
use crate::run_loop::RunLoop;
use crate::vision::gallery::Gallery;

/// How far a step is.
#[derive(Default)]
pub(crate) struct Flight {
    /// When it began.
    began: Duration,
    /// Whether every sequence is computed alone.
    alone: bool,
    /// What the model runs over, of the plan's work.
    now: Range<usize>,
}

impl RunLoop {
    /// Makes one step, the model's part included.
    pub(crate) fn step(&mut self) {
        self.begin_step();
        while let Some(mut reading) = self.look() {
            let read = reading.run();
            self.saw(reading, read);
        }
        while let Some(mut runner) = self.gather() {
            self.settle(runner.run());
            self.compute.take_back(runner);
        }
        self.emit();
    }

    /// Decides what is computed in a step.
    pub(crate) fn begin_step(&mut self) {
        let began = self.shared.clock.now();
        self.expire(began);
        self.land(began);
        self.admit(began);
        self.plan();
        self.plan_look();
        self.spill();
        let is_suspect = |work: &Work| self.suspects.contains(&self.running[work.index].rank.order);
        let alone = self.plan.work.iter().any(is_suspect);
        self.flight = Flight { began, alone, now: 0..0 };
    }

    /// Fails whatever is late, so that it is neither started nor continued.
    fn expire(&mut self, now: Duration) {
        for request in self.line.expire(now) {
            self.report(request, Failure::DeadlineExceeded);
        }
        let is_late = |request: &&Request| request.is_late(now);
        while let Some(order) = self.requests.values().find(is_late).map(|request| request.order) {
            self.fail(order, Failure::DeadlineExceeded);
        }
    }

    /// Lets the head of the line run, and the next one, while there is room.
    fn admit(&mut self, now: Duration) {
        self.shed();
        self.enter(now);
        while let Some(head) = self.head(now) {
            if self.next_is_loading(now) || !self.may_start() {
                break;
            }
            self.count_slots();
            match plan::admission(head, &self.slots, self.room()) {
                Admission::Admit if self.seek(now) => break,
                Admission::Admit => {
                    self.easing.started();
                    self.start_next(now);
                }
                Admission::PreemptLast => self.preempt_from(self.running.len() - 1),
                Admission::Wait => break,
            }
        }
        self.line.announce(now);
    }

    /// Decides who computes how much, and gives them the pages for it.
    fn plan(&mut self) {
        self.catch_up();
        self.count_slots();
        plan::plan(&self.slots, self.room(), &mut self.plan);
        self.preempt_from(self.plan.keep);
        for work in &self.plan.work {
            self.running[work.index].reserve(work.rows, &mut self.pages);
        }
        self.speculate();
    }

    /// Gathers what the model runs over next: the whole plan, or after a failure each sequence alone, which gives the same
    /// bits, so that only the request that cannot be computed fails. None when all of it is computed.
    pub(crate) fn gather(&mut self) -> Option<Box<Runner>> {
        let work = &self.plan.work;
        let start = self.flight.now.end;
        let end = if self.flight.alone { start + 1 } else { work.len() };
        if start >= work.len() {
            return None;
        }
        self.flight.now = start..end;
        self.compute.lend(&mut self.running, &work[start..end])
    }

    /// Chooses tokens by what the model has said.
    pub(crate) fn settle(&mut self, ran: Result<Outputs<'_>, String>) {
        let work = &self.plan.work[self.flight.now.clone()];
        let chosen = self.compute.choose(ran, (&mut self.running, work), &self.tokenizer, &mut self.outcome);
        match chosen {
            Ok(()) if self.suspects.is_empty() => {}
            Ok(()) => {
                let passed = |order: &u64| work.iter().any(|w| self.running[w.index].rank.order == *order);
                self.suspects.retain(|order| !passed(order) && self.requests.contains_key(order));
            }
            Err(message) if self.flight.alone => {
                let failed = |work: &Work| (work.index, Failure::Engine { message: message.clone() });
                self.outcome.lost.extend(work.iter().map(failed));
            }
            Err(message) => {
                tracing::error!(%message, sequences = work.len(), "a step failed");
                self.shared.meters.fault(&message, self.shared.clock.now());
                self.faulty = true;
                self.flight = Flight { alone: true, now: 0..0, ..self.flight };
            }
        }
    }

    /// Goes on without the model or the tower, whichever does not come back: all that ran is computed again from its tokens,
    /// and the picture that was read from its beginning.
    pub(crate) fn leave_behind(&mut self) {
        let now = self.shared.clock.now();
        let message = "a step did not end; the model was loaded again";
        self.shared.meters.fault(message, now);
        self.shared.meters.restarts.fetch_add(1, Relaxed);
        self.compute.return_guides(&mut self.running, &mut self.outcome);
        self.outcome = Outcome::default();
        let work = &self.plan.work[self.flight.now.clone()];
        let computed: BTreeSet<u64> = work.iter().map(|work| self.running[work.index].rank.order).collect();
        let viewers = self.gallery.as_mut().map(Gallery::leave_behind).unwrap_or_default();
        // A picture is read alone, whoever waits for it.
        let is_known = computed.len() == 1 || !viewers.is_empty();
        self.plan.work.clear();
        self.flight = Flight::default();
        self.preempt_from(0);
        // What the pages held is gone, and what leaves them would be something else.
        self.pages.clear();
        self.pages.take_leaving();
        for order in computed.iter().chain(&viewers) {
            let stalls = self.requests.get_mut(order).map_or(0, |request| {
                request.stalls += 1;
                request.stalls
            });
            if is_known && stalls > 1 {
                let message = "the model did not come back from computing it, twice".to_owned();
                self.fail(*order, Failure::Engine { message });
            }
        }
        self.suspects.extend(computed);
        self.turn = None;
        self.seat.rest();
        self.publish();
    }

    /// Goes on with the model loaded again.
    pub(crate) fn renew(&mut self, runner: Runner, tower: Option<Box<dyn Tower>>) {
        self.compute.take_back(Box::new(runner));
        if let (Some(gallery), Some(tower)) = (&mut self.gallery, tower) {
            gallery.renew(tower);
        }
        self.publish();
    }

    /// Sends what was sampled, and lets go of what has ended or broken.
    pub(crate) fn emit(&mut self) {
        let (began, now) = (self.flight.began, self.shared.clock.now());
        let lost = self.outcome.lost.drain(..);
        self.broken.extend(lost.map(|(index, failure)| (self.running[index].rank.order, failure)));
        self.count_step(now.saturating_sub(began));
        self.pace(began, now);
        for work in &self.plan.work {
            let sequence = &mut self.running[work.index];
            // What a failed computation left in its pages is not for others.
            if !self.broken.iter().any(|(order, _)| *order == sequence.rank.order) {
                sequence.advance(work.rows, &mut self.pages);
            }
        }
        let mut outcome = std::mem::take(&mut self.outcome);
        for token in outcome.sampled.drain(..) {
            self.deliver(token, now);
        }
        for (index, vector) in outcome.vectors.drain(..) {
            self.hand_over(index, vector, now);
        }
        self.outcome = outcome;
        self.put_back();
        self.dismiss_ended();
        // Whoever hears that a request has ended sees its pages free.
        self.publish();
        for request in std::mem::take(&mut self.completed) {
            self.let_go(&request);
            request.complete(now);
        }
        while let Some((order, failure)) = self.broken.pop() {
            self.fail(order, failure);
        }
    }
}
