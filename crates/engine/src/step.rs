//! One step of the engine: admit, plan, forward, sample, emit.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use protocol::Failure;

use crate::compute::Sampled;
use crate::outbox::Output;
use crate::plan::{self, Admission, Head, Rank, Work};
use crate::run_loop::{RunLoop, insert_by_rank};
use crate::sequence::Sequence;

impl RunLoop {
    /// Makes one step.
    pub(crate) fn step(&mut self) {
        let began = self.shared.clock.now();
        self.expire(began);
        self.admit(began);
        self.plan();
        self.compute();
        self.emit(began);
        self.publish();
    }

    /// Fails whatever is late, so that it is neither started nor continued.
    fn expire(&mut self, now: Duration) {
        let all = self.line.iter().chain(self.requests.values());
        let late: Vec<u64> =
            all.filter(|request| request.is_late(now)).map(|request| request.order).collect();
        for order in late {
            self.fail(order, Failure::DeadlineExceeded);
        }
    }

    /// Lets the head of the line run, and the next one, while there is room.
    fn admit(&mut self, now: Duration) {
        while let Some(head) = self.head() {
            self.count_slots();
            match plan::admission(head, &self.slots, self.room()) {
                Admission::Admit => self.start_next(now),
                Admission::PreemptLast => self.preempt_from(self.running.len() - 1),
                Admission::Wait => break,
            }
        }
        self.line.announce();
    }

    /// A sequence that ran before, or belongs to a request that has started, goes before requests that have not,
    /// unless they are more urgent.
    fn head(&self) -> Option<Head> {
        match (self.lobby.first(), self.line.head()) {
            (Some(sequence), Some(request)) if sequence.rank.band > request.band() => {
                Some(Head { band: request.band(), known: request.parameters.prompt.len() })
            }
            (Some(sequence), _) => Some(sequence.head()),
            (None, line) => {
                line.map(|request| Head { band: request.band(), known: request.parameters.prompt.len() })
            }
        }
    }

    fn start_next(&mut self, now: Duration) {
        let line_first = match (self.lobby.first(), self.line.head()) {
            (Some(sequence), Some(request)) => sequence.rank.band > request.band(),
            (lobby, _) => lobby.is_none(),
        };
        if line_first && let Some(mut request) = self.line.pop() {
            self.shared.meters.queue.observe(request.start(now).as_secs_f64());
            self.shared.gate.drained(1, now);
            let (band, order) = (request.band(), request.order);
            for choice in 0..request.parameters.choices {
                let sequence = Sequence::new(Rank { band, order, choice }, request.parameters.clone());
                insert_by_rank(&mut self.lobby, sequence);
            }
            self.requests.insert(order, request);
        }
        insert_by_rank(&mut self.running, self.lobby.remove(0));
    }

    /// Takes the pages of all running sequences from `index` on; they keep their tokens and their place.
    fn preempt_from(&mut self, index: usize) {
        for mut sequence in self.running.drain(index..).rev() {
            sequence.release(&mut self.pages);
            self.shared.meters.preemptions.fetch_add(1, Relaxed);
            insert_by_rank(&mut self.lobby, sequence);
        }
    }

    fn count_slots(&mut self) {
        self.slots.clear();
        self.slots.extend(self.running.iter().map(Sequence::slot));
    }

    /// Decides who computes how much, and gives them the pages for it.
    fn plan(&mut self) {
        self.count_slots();
        plan::plan(&self.slots, self.room(), &mut self.plan);
        self.preempt_from(self.plan.keep);
        for work in &self.plan.work {
            self.running[work.index].reserve(work.rows, &mut self.pages);
        }
    }

    /// Runs the model over the plan. If it panics, every sequence is computed again alone, which gives the same bits,
    /// so that only the request that cannot be computed fails.
    fn compute(&mut self) {
        self.sampled.clear();
        let mut run = |work: &[Work], sampled: &mut Vec<Sampled>| {
            self.compute.run((&self.running, work), &self.tokenizer, sampled)
        };
        let work = &self.plan.work;
        let Err(message) = run(work, &mut self.sampled) else { return };
        tracing::error!(%message, sequences = work.len(), "a step failed");
        self.shared.meters.fault(&message, self.shared.clock.now());
        self.faulty = true;
        for one in work.chunks(1) {
            if let Err(message) = run(one, &mut self.sampled) {
                self.broken.push((self.running[one[0].index].rank.order, message));
            }
        }
    }

    /// Sends what was sampled, and lets go of what has ended or broken.
    fn emit(&mut self, began: Duration) {
        let now = self.shared.clock.now();
        self.count(now.saturating_sub(began));
        for work in &self.plan.work {
            self.running[work.index].advance(work.rows);
        }
        let mut sampled = std::mem::take(&mut self.sampled);
        for token in sampled.drain(..) {
            self.deliver(token, now);
        }
        self.sampled = sampled;
        self.running.retain(|sequence| !sequence.ended);
        while let Some((order, message)) = self.broken.pop() {
            self.fail(order, Failure::Engine { message });
        }
    }

    fn deliver(&mut self, sampled: Sampled, now: Duration) {
        let meters = &self.shared.meters;
        let sequence = &mut self.running[sampled.index];
        let Rank { order, choice, .. } = sequence.rank;
        let Some(request) = self.requests.get_mut(&order) else { return };
        self.text.clear();
        let ended = sequence.accept(sampled.token, &self.tokenizer, &mut self.text);
        if let Some(last) = sequence.last_token_at.replace(now) {
            meters.inter_token.observe(now.saturating_sub(last).as_secs_f64());
        }
        let output = Output { choice, text: &self.text, token: sampled.token, logprob: sampled.logprob };
        if let Some(wait) = request.output(output, now) {
            meters.first_token.observe(wait.as_secs_f64());
        }
        let Some(reason) = ended else { return };
        sequence.ended = true;
        sequence.release(&mut self.pages);
        if request.finish(choice, reason)
            && let Some(request) = self.requests.remove(&order)
        {
            let (reason, total) = request.complete(now);
            meters.completed(reason);
            meters.request.observe(total.as_secs_f64());
        }
    }

    fn count(&mut self, duration: Duration) {
        let meters = &self.shared.meters;
        let rows: usize = self.plan.work.iter().map(|work| work.rows).sum();
        let read = |work: &Work| self.running[work.index].prompt_rows(work.rows);
        let prompt: usize = self.plan.work.iter().map(read).sum();
        meters.steps.fetch_add(1, Relaxed);
        meters.prompt_tokens.fetch_add(prompt as u64, Relaxed);
        meters.generated_tokens.fetch_add(self.sampled.len() as u64, Relaxed);
        meters.step.observe(duration.as_secs_f64());
        meters.step_tokens.observe(rows as f64);
        if self.faulty && self.broken.is_empty() {
            self.faulty = false;
            meters.recovered();
        }
    }
}
