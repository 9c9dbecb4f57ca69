//! What becomes of a sampled token, or of a vector: text for the client, numbers for the meters, and the end of a choice or
//! request.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::draws::Sampled;
use crate::outbox::Output;
use crate::plan::Work;
use crate::run_loop::RunLoop;

impl RunLoop {
    /// Sends one token to its client and ends what it ends.
    pub(crate) fn deliver(&mut self, sampled: Sampled, now: Duration) {
        let sequence = &mut self.running[sampled.index];
        if sequence.ended {
            // It ended with the token before, and the text behind that was only tried.
            return;
        }
        let rank = sequence.rank;
        let was_reading = sequence.is_reading();
        self.text.clear();
        let ended = sequence.accept(sampled.token, &self.tokenizer, &mut self.text);
        sequence.ended = ended.is_some();
        self.shared.meters.generated_tokens.fetch_add(1, Relaxed);
        if sequence.confirm(sampled.drafts, &mut self.pages) {
            self.shared.meters.draft_hits.fetch_add(1, Relaxed);
        }
        let last = sequence.last_token_at.replace(now);

        let reasoned = sequence.reasoned;
        let Some(request) = self.requests.get_mut(&rank.order) else { return };
        let meters = &self.shared.meters;
        if let Some(last) = last {
            meters.inter_token.observe(now.saturating_sub(last));
        }
        let output =
            Output { choice: rank.choice, text: &self.text, token: sampled.token, logprob: sampled.logprob };
        if let Some(wait) = request.output(output, now) {
            meters.first_token.observe(wait);
        }
        if let Some(reason) = ended
            && request.finish((rank.choice, reason), reasoned)
            && let Some(request) = self.requests.remove(&rank.order)
        {
            meters.completed(request.first_reason);
            meters.request.observe(now.saturating_sub(request.accepted_at));
            self.completed.push(request);
        }
        if was_reading && rank.choice == 0 {
            self.fork(rank);
        }
    }

    /// Hands the vector of a sequence to its client, which ends it.
    pub(crate) fn hand_over(&mut self, index: usize, vector: Vec<f32>, now: Duration) {
        let sequence = &mut self.running[index];
        sequence.ended = true;
        let Some(mut request) = self.requests.remove(&sequence.rank.order) else { return };
        request.hand_over(vector);
        let meters = &self.shared.meters;
        meters.completed(request.first_reason);
        meters.request.observe(now.saturating_sub(request.accepted_at));
        self.completed.push(request);
    }

    /// Gives back the pages of what was tried in vain.
    pub(crate) fn put_back(&mut self) {
        for work in self.plan.work.iter().filter(|work| work.drafts > 0) {
            self.running[work.index].put_back(&mut self.pages);
        }
    }

    /// Lets go of the sequences that have ended.
    pub(crate) fn dismiss_ended(&mut self) {
        let pages = &mut self.pages;
        self.running.retain_mut(|sequence| {
            if sequence.ended {
                sequence.release(pages);
            }
            !sequence.ended
        });
    }

    /// Counts a step that took so long.
    pub(crate) fn count_step(&mut self, duration: Duration) {
        let meters = &self.shared.meters;
        let rows: usize = self.plan.work.iter().map(Work::all_rows).sum();
        let drafts: usize = self.plan.work.iter().map(|work| work.drafts).sum();
        let read = |work: &Work| self.running[work.index].prompt_rows(work.rows);
        let prompt: usize = self.plan.work.iter().map(read).sum();
        meters.steps.fetch_add(1, Relaxed);
        meters.prompt_tokens.fetch_add(prompt as u64, Relaxed);
        meters.drafted.fetch_add(drafts as u64, Relaxed);
        meters.step.observe(duration);
        if rows > 0 {
            meters.step_tokens.observe(rows);
        }
        if self.faulty && self.broken.is_empty() {
            self.faulty = false;
            meters.recovered();
        }
    }
}
