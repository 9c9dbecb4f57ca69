//! An engine whose steps are made by the test, and clients that record what they hear.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use models::generation::GenerationDefaults;
use models::tokenizer::Tokenizer;
use models::{Embedder, LoadedModel, ModelHolding};
use protocol::{
    Event, FinishReason, GenerateRequest, Generation, Inference, Prompt, Refusal, TokenLogprob, Usage,
};
use tensor::Dtype;

use super::model::{END, HashModel};
use crate::clock::Clock;
use crate::run_loop::RunLoop;
use crate::{Engine, EngineSettings, KvBudget};

#[derive(Default)]
pub(crate) struct ManualClock {
    millis: AtomicU64,
}

impl ManualClock {
    pub(crate) fn advance(&self, by: Duration) {
        self.millis.fetch_add(by.as_millis() as u64, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Duration {
        Duration::from_millis(self.millis.load(Ordering::SeqCst))
    }
}

pub(crate) fn tokenizer_file() -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("test_data/tokenizer.json")).unwrap()
}

pub(crate) fn tokenizer() -> Tokenizer {
    Tokenizer::parse(Path::new("tokenizer.json"), &tokenizer_file()).unwrap()
}

pub(crate) fn loaded(model: HashModel) -> LoadedModel {
    LoadedModel {
        streamed: None,
        family: "hash",
        dtype: Dtype::F32,
        holding: ModelHolding::Floats,
        identity: None,
        model: Box::new(model),
        vision: None,
        tokenizer: tokenizer(),
        embedder: Embedder::plain(&tokenizer(), 4096).unwrap(),
        chat_template: None,
        generation: GenerationDefaults { eos_token_ids: vec![END], ..GenerationDefaults::default() },
    }
}

/// Settings small enough that everything happens: chunks, waiting, preemption.
pub(crate) fn settings(pages: usize, max_batch_tokens: usize, max_sequences: usize) -> EngineSettings {
    EngineSettings {
        name: "hash".to_owned(),
        max_batch_tokens,
        max_sequences,
        kv: KvBudget::Pages(pages),
        ..EngineSettings::default()
    }
}

pub(crate) struct Bench {
    pub(crate) engine: Engine,
    pub(crate) run_loop: RunLoop,
    pub(crate) clock: Arc<ManualClock>,
}

impl Bench {
    pub(crate) fn new(model: HashModel, settings: EngineSettings) -> Self {
        let clock = Arc::new(ManualClock::default());
        let (engine, run_loop) = Engine::assemble(loaded(model), settings, clock.clone()).unwrap();
        Self { engine, run_loop, clock }
    }

    pub(crate) fn ask(&self, request: GenerateRequest) -> Result<Client, Refusal> {
        let answer = self.engine.generate(request).now_or_never();
        let generation = answer.expect("short prompts are read at once")?;
        Ok(Client::of(generation))
    }

    /// Takes commands and makes one step, checking that pages are neither lost nor shared.
    pub(crate) fn step(&mut self) {
        self.run_loop.obey_all();
        if self.run_loop.has_work() {
            self.run_loop.step();
        }
        self.clock.advance(Duration::from_millis(10));
        let mut owners = vec![0; self.run_loop.pages.pool().total()];
        for sequence in &self.run_loop.running {
            let written_next = sequence.computed() / tensor::PAGE_TOKENS;
            for (index, &page) in sequence.pages().iter().enumerate() {
                owners[page as usize] += 1;
                let shared = self.run_loop.pages.pool().owners(page) > 1;
                assert!(!shared || index < written_next, "a page that is still written to is shared");
            }
        }
        for (page, &owners) in owners.iter().enumerate() {
            assert_eq!(
                owners,
                self.run_loop.pages.pool().owners(page as u32),
                "page {page} is lost or shared unknowingly"
            );
        }
        let mut all = self.run_loop.running.iter().chain(&self.run_loop.lobby);
        assert!(
            all.all(|s| self.run_loop.requests.contains_key(&s.rank.order)),
            "a sequence outlives its request"
        );
        assert!(self.run_loop.running.is_sorted_by_key(|s| s.rank));
        assert!(self.run_loop.lobby.iter().all(|s| s.pages().is_empty()));
    }

    /// Makes one step if there is anything to do, and says whether there was.
    pub(crate) fn step_if_any(&mut self) -> bool {
        self.run_loop.obey_all();
        let any = self.run_loop.has_work();
        if any {
            self.step();
        }
        any
    }

    /// Steps until nothing is left to do.
    pub(crate) fn finish(&mut self) {
        for _ in 0..200_000 {
            if !self.step_if_any() {
                return;
            }
        }
        panic!("the engine does not come to an end");
    }
}

pub(crate) struct Client {
    generation: Generation,
    pub(crate) events: Vec<Event>,
}

impl Client {
    pub(crate) fn of(generation: Generation) -> Self {
        Self { generation, events: Vec::new() }
    }

    /// Reads what has come in.
    pub(crate) fn read(&mut self) -> &[Event] {
        while let Some(Some(event)) = self.generation.next().now_or_never() {
            self.events.push(event);
        }
        &self.events
    }

    pub(crate) fn transcript(mut self) -> Transcript {
        self.read();
        Transcript::of(&self.events)
    }
}

/// A token and the bits of its log-probability.
pub(crate) type Scored = (u32, u32);

/// What one choice said, with log-probabilities as bits.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Said {
    pub(crate) text: String,
    pub(crate) tokens: Vec<u32>,
    pub(crate) logprobs: Vec<(Scored, Vec<Scored>)>,
    pub(crate) reason: Option<FinishReason>,
}

/// What a request heard, however its deltas were merged.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Transcript {
    pub(crate) said: Vec<Said>,
    /// The terminal event, without times and what was cached.
    pub(crate) end: Option<Event>,
}

impl Transcript {
    pub(crate) fn of(events: &[Event]) -> Self {
        let mut said: Vec<Said> = Vec::new();
        let mut end = None;
        for event in events {
            assert_eq!(end, None, "nothing follows a terminal event");
            match event {
                Event::Delta(delta) => {
                    let choice = choice(&mut said, delta.choice);
                    assert_eq!(choice.reason, None, "nothing of a choice follows its end");
                    choice.text.push_str(&delta.text);
                    choice.tokens.extend(&delta.tokens);
                    choice.logprobs.extend(delta.logprobs.iter().map(bits));
                }
                Event::Finished { choice: index, reason } => {
                    let choice = choice(&mut said, *index);
                    assert_eq!(choice.reason.replace(*reason), None, "a choice ends once");
                }
                Event::Done { usage, .. } => {
                    assert!(said.iter().all(|said| said.reason.is_some()));
                    // How much was cached is no part of the answer.
                    let usage = Usage { cached_tokens: 0, ..*usage };
                    end = Some(Event::Done { usage, timing: protocol::Timing::default() });
                }
                Event::Failed(_) => end = Some(event.clone()),
                Event::Queued { .. } | Event::Started => {}
            }
        }
        Self { said, end }
    }
}

fn choice(said: &mut Vec<Said>, index: u32) -> &mut Said {
    if said.len() <= index as usize {
        said.resize_with(index as usize + 1, Said::default);
    }
    &mut said[index as usize]
}

fn bits(entry: &TokenLogprob) -> (Scored, Vec<Scored>) {
    let scored = |entry: &TokenLogprob| (entry.id, entry.logprob.to_bits());
    (scored(entry), entry.top.iter().map(scored).collect())
}

/// A request for `max` tokens after the given ones.
pub(crate) fn tokens(prompt: Vec<u32>, max: u32) -> GenerateRequest {
    let mut request = GenerateRequest::new("test", Prompt::Tokens(prompt));
    request.limits.max_tokens = Some(max);
    request.sampling.temperature = Some(0.0);
    request
}
