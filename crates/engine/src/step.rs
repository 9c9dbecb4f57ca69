//! One step of the engine: admit, plan, look, forward, sample, emit.

use std::time::Duration;

use protocol::Failure;

use crate::compute::Outcome;
use crate::plan::{self, Admission, Work};
use crate::request::Request;
use crate::run_loop::RunLoop;

impl RunLoop {
    /// Makes one step.
    pub(crate) fn step(&mut self) {
        let began = self.shared.clock.now();
        self.expire(began);
        self.land(began);
        self.admit(began);
        self.plan();
        self.look();
        self.forward_and_sample();
        self.emit(began);
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
        self.enter(now);
        while let Some(head) = self.head(now) {
            if self.head_is_loading(now) {
                break;
            }
            self.count_slots();
            match plan::admission(head, &self.slots, self.room()) {
                Admission::Admit => self.start_next(now),
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

    /// Runs the model over the plan. If it panics, every sequence is computed again alone, which gives the same bits,
    /// so that only the request that cannot be computed fails.
    fn forward_and_sample(&mut self) {
        self.spill();
        let mut run = |work: &[Work], outcome: &mut Outcome| {
            self.compute.run((&mut self.running, work), &self.tokenizer, outcome)
        };
        let work = &self.plan.work;
        if work.is_empty() {
            return;
        }
        let Err(message) = run(work, &mut self.outcome) else { return };
        tracing::error!(%message, sequences = work.len(), "a step failed");
        self.shared.meters.fault(&message, self.shared.clock.now());
        self.faulty = true;
        for one in work.chunks(1) {
            if let Err(message) = run(one, &mut self.outcome) {
                self.outcome.lost.push((one[0].index, Failure::Engine { message }));
            }
        }
    }

    /// Sends what was sampled, and lets go of what has ended or broken.
    fn emit(&mut self, began: Duration) {
        let now = self.shared.clock.now();
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
