//! The model, its memory, and what it says about the next tokens.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use memory::PageId;
use models::tokenizer::Tokenizer;
use models::{Batch, CausalLm, Outputs};
use protocol::Failure;
use tensor::KvArena;

use crate::draws::{Choosers, Draw, Sampled};
use crate::form::Masks;
use crate::plan::Work;
use crate::sequence::Sequence;

/// What a step comes to. Kept from step to step for its memory.
#[derive(Default)]
pub(crate) struct Outcome {
    /// The tokens that were chosen.
    pub(crate) sampled: Vec<Sampled>,
    /// Running sequences of which a vector was wanted, and these vectors.
    pub(crate) vectors: Vec<(usize, Vec<f32>)>,
    /// Running sequences for which none could be chosen, by their own doing.
    pub(crate) lost: Vec<(usize, Failure)>,
}

/// What the model runs on: it leaves the engine's hands while the model runs, which may not come back.
pub(crate) struct Runner {
    model: Box<dyn CausalLm>,
    kv: KvArena,
    batch: Batch,
}

impl Runner {
    /// A model with its pages.
    pub(crate) fn new(model: Box<dyn CausalLm>, kv: KvArena) -> Self {
        Self { model, kv, batch: Batch::default() }
    }

    /// Runs the model over the rows that were gathered and returns what it says of them.
    ///
    /// # Errors
    /// What the model said when it panicked.
    pub(crate) fn run(&mut self) -> Result<Outputs<'_>, String> {
        let Self { model, kv, batch } = self;
        let forward = move || {
            // Moving it out makes this a closure that is called once, which may give away what the model lends.
            let model = model;
            model.forward(batch, kv)
        };
        catch_unwind(AssertUnwindSafe(forward)).map_err(|panic| message(&*panic))
    }

    /// Runs one token through the model, so that the first request does not pay for first touches.
    ///
    /// # Errors
    /// What the model said when it panicked.
    pub(crate) fn warm_up(&mut self) -> Result<(), String> {
        self.batch.clear();
        self.batch.push(&[0], 0, &[0]);
        self.batch.want_last(1);
        self.run().map(|_| ())
    }
}

/// What a step is computed with, before and after the model runs.
pub(crate) struct Compute {
    /// Away while the model runs.
    runner: Option<Box<Runner>>,
    pages: usize,
    page_bytes: usize,
    vocabulary: usize,
    /// Width of a hidden state.
    hidden: usize,
    /// Tokens of one sequence for the batch.
    chunk: Vec<u32>,
    choosers: Choosers,
    masks: Masks,
}

impl Compute {
    /// All that the steps of an engine need.
    pub(crate) fn new(runner: Runner) -> Self {
        Self {
            pages: runner.kv.pages(),
            page_bytes: runner.kv.layout().page_bytes(),
            vocabulary: runner.model.shape().vocabulary,
            hidden: runner.model.shape().hidden,
            runner: Some(Box::new(runner)),
            chunk: Vec::new(),
            choosers: Choosers::default(),
            masks: Masks::default(),
        }
    }

    /// Pages in all.
    pub(crate) fn pages(&self) -> usize {
        self.pages
    }

    /// Bytes of a page.
    pub(crate) fn page_bytes(&self) -> usize {
        self.page_bytes
    }

    /// The bytes of a page, unless the model runs.
    pub(crate) fn page(&self, page: PageId) -> Option<&[u8]> {
        let runner = self.runner.as_ref()?;
        Some(&runner.kv.bytes()[page as usize * self.page_bytes..][..self.page_bytes])
    }

    /// The bytes of a page for writing, unless the model runs.
    pub(crate) fn page_mut(&mut self, page: PageId) -> Option<&mut [u8]> {
        let runner = self.runner.as_mut()?;
        Some(&mut runner.kv.bytes_mut()[page as usize * self.page_bytes..][..self.page_bytes])
    }

    /// Gives the memory of pages back to the system until they are written to, unless the model runs.
    pub(crate) fn forget(&mut self, pages: &[PageId]) {
        self.runner.iter_mut().for_each(|runner| runner.kv.forget(pages));
    }

    /// Whether the model runs.
    pub(crate) fn is_running(&self) -> bool {
        self.runner.is_none()
    }

    /// Takes the runner back, or another one in its place.
    pub(crate) fn take_back(&mut self, runner: Box<Runner>) {
        self.runner = Some(runner);
    }

    /// Gathers the planned rows of `running` and gives the runner away to run the model over them.
    pub(crate) fn lend(&mut self, running: &mut [Sequence], work: &[Work]) -> Option<Box<Runner>> {
        let mut runner = self.runner.take()?;
        runner.batch.clear();
        for work in work {
            let sequence = &mut running[work.index];
            self.chunk.clear();
            self.chunk.extend_from_slice(sequence.chunk(work.rows));
            self.chunk.extend_from_slice(&sequence.foresight().expected()[..work.drafts]);
            sequence.push_to(&mut runner.batch, &self.chunk);
            let states = sequence.states_of(work.rows);
            if states > 0 {
                runner.batch.want_states(states);
            }
            if sequence.samples_after(work.rows) {
                runner.batch.want_last(1 + work.drafts);
                sequence.lend_guide().into_iter().for_each(|guide| self.masks.begin(work.index, guide));
            }
        }
        Some(runner)
    }

    /// Appends a token for each sequence whose known tokens have all been computed, or its vector where that is wanted.
    ///
    /// # Errors
    /// What the model said when it panicked, or what went wrong here; nothing is appended then.
    pub(crate) fn choose(
        &mut self,
        said: Result<Outputs<'_>, String>,
        (running, work): (&mut [Sequence], &[Work]),
        tokenizer: &Tokenizer,
        outcome: &mut Outcome,
    ) -> Result<(), String> {
        let before = (outcome.sampled.len(), outcome.lost.len());
        self.return_guides(running, outcome);
        let sampled = said.and_then(|outputs| {
            let sample = || self.sample(outputs, (running, work), tokenizer, outcome);
            let sampled = catch_unwind(AssertUnwindSafe(sample));
            sampled.unwrap_or_else(|panic| Err(message(&*panic)))?;
            Ok(outputs.states)
        });
        if sampled.is_err() {
            outcome.sampled.truncate(before.0);
            outcome.lost.truncate(before.1);
        }
        // Not before it is clear that nothing of this is computed again.
        self.gather(sampled?, (running, work), outcome);
        Ok(())
    }

    /// Gives the hidden states to the sequences that need them.
    fn gather(&self, mut states: &[f32], (running, work): (&mut [Sequence], &[Work]), outcome: &mut Outcome) {
        for Work { index, rows, .. } in work {
            let sequence = &mut running[*index];
            let (own, others) = states.split_at(sequence.states_of(*rows) * self.hidden);
            states = others;
            match sequence.gather(own, self.hidden, *rows) {
                None => {}
                Some(vector) if vector.iter().all(|value| value.is_finite()) => {
                    outcome.vectors.push((*index, vector));
                }
                Some(_) => {
                    let message = "the model's hidden states are no numbers".to_owned();
                    outcome.lost.push((*index, Failure::Engine { message }));
                }
            }
        }
    }

    /// Waits for the masks of the sequences that follow a form.
    pub(crate) fn return_guides(&mut self, running: &mut [Sequence], outcome: &mut Outcome) {
        self.masks.collect(|index, guide, looked| {
            running[index].return_guide(guide);
            outcome.lost.extend(looked.err().map(|message| (index, Failure::Form { message })));
        });
    }

    fn sample(
        &mut self,
        Outputs { logits, pool, .. }: Outputs<'_>,
        (running, work): (&[Sequence], &[Work]),
        tokenizer: &Tokenizer,
        outcome: &mut Outcome,
    ) -> Result<(), String> {
        let mut draws = Vec::with_capacity(work.len());
        let mut first = 0;
        for &Work { index, drafts, .. } in work.iter().filter(|w| running[w.index].samples_after(w.rows)) {
            let rows = &logits[first..first + (1 + drafts) * self.vocabulary];
            first += rows.len();
            let sequence = &running[index];
            if outcome.lost.iter().any(|(lost, _)| *lost == index) {
                continue;
            }
            if sequence.is_lost() {
                let message = "the thread that follows it has ended".to_owned();
                outcome.lost.push((index, Failure::Form { message }));
                continue;
            }
            let before = outcome.sampled.len();
            let forced = sequence.forced();
            outcome.sampled.extend(forced.map(|token| Sampled { index, drafts: 0, token, logprob: None }));
            if outcome.sampled.len() == before {
                draws.push(Draw { index, sequence, drafts, rows });
            }
        }
        Ok(self.choosers.choose(&draws, tokenizer, pool, &mut outcome.sampled)?)
    }
}

/// The text of a panic.
pub(crate) fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "unknown panic".to_owned())
}
