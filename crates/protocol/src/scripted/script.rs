//! What a [`super::Scripted`] answers to one request.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use super::Gate;
use crate::{Delta, Event, Failure, FinishReason, GenerateRequest, Refusal, Timing, TokenLogprob, Usage};

/// The answer to one request, in the order in which it is given.
///
/// ```
/// use protocol::scripted::{Gate, Script};
/// let gate = Gate::new();
/// let script = Script::new().queued(1).started().say("Hel").gate(&gate).say("lo").finish_and_done();
/// ```
#[derive(Clone, Debug, Default)]
pub struct Script {
    steps: Vec<Step>,
    choice: u32,
    prompt_tokens: Option<u32>,
    cached_tokens: u32,
    reasons_at_once: bool,
}

#[derive(Clone, Debug)]
enum Step {
    Refuse(Refusal),
    Emit(Event),
    Say { choice: u32, text: String },
    Gate(Gate),
    Done,
    Cut,
}

/// A script fitted to one request: what the stream will do.
pub(super) struct Play {
    pub(super) prompt_tokens: u32,
    pub(super) reasons_at_once: bool,
    pub(super) cues: VecDeque<Cue>,
}

pub(super) enum Cue {
    Emit(Event),
    Gate(Gate),
}

impl Script {
    /// An empty script.
    pub fn new() -> Self {
        Self::default()
    }

    /// Refuses the request.
    pub fn refuse(refusal: Refusal) -> Self {
        Self::new().step(Step::Refuse(refusal))
    }

    /// Pretends that the prompt ends inside of the model's reasoning.
    #[must_use]
    pub fn reasons_at_once(mut self) -> Self {
        self.reasons_at_once = true;
        self
    }

    /// Starts, says each piece as one token, and stops.
    pub fn text(pieces: &[&str]) -> Self {
        pieces.iter().fold(Self::new().started(), |script, piece| script.say(piece)).finish_and_done()
    }

    /// The prompt has this many tokens, of which `cached` need no computation; without it 7 and 0.
    #[must_use]
    pub fn prompt_tokens(mut self, tokens: u32, cached: u32) -> Self {
        (self.prompt_tokens, self.cached_tokens) = (Some(tokens), cached);
        self
    }

    /// `ahead` requests will be served earlier.
    #[must_use]
    pub fn queued(self, ahead: u32) -> Self {
        self.step(Step::Emit(Event::Queued { ahead }))
    }

    /// The request leaves the queue.
    #[must_use]
    pub fn started(self) -> Self {
        self.step(Step::Emit(Event::Started))
    }

    /// What follows belongs to this choice.
    #[must_use]
    pub fn choice(mut self, choice: u32) -> Self {
        self.choice = choice;
        self
    }

    /// One token with this text, and with made-up log-probabilities if the request asks for them: -0.5 for the
    /// token, and -0.5, -1.5, … for the most probable ones, of which it is the first.
    #[must_use]
    pub fn say(self, text: &str) -> Self {
        let choice = self.choice;
        self.step(Step::Say { choice, text: text.to_owned() })
    }

    /// Any event, as it stands.
    #[must_use]
    pub fn event(self, event: Event) -> Self {
        self.step(Step::Emit(event))
    }

    /// Nothing more until the gate opens.
    #[must_use]
    pub fn gate(self, gate: &Gate) -> Self {
        self.step(Step::Gate(gate.clone()))
    }

    /// The choice ends.
    #[must_use]
    pub fn finish(self, reason: FinishReason) -> Self {
        let choice = self.choice;
        self.step(Step::Emit(Event::Finished { choice, reason }))
    }

    /// All choices have ended; usage and timing are filled in.
    #[must_use]
    pub fn done(self) -> Self {
        self.step(Step::Done)
    }

    /// The only choice stops, and with it the request.
    #[must_use]
    pub fn finish_and_done(self) -> Self {
        self.finish(FinishReason::Stop).done()
    }

    /// The request fails.
    #[must_use]
    pub fn fail(self, failure: Failure) -> Self {
        self.step(Step::Emit(Event::Failed(failure)))
    }

    /// The stream ends without a terminal event, which no [`crate::Inference`] may do: a caller must survive it.
    #[must_use]
    pub fn cut(self) -> Self {
        self.step(Step::Cut)
    }

    fn step(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    /// Fits the script to a request.
    ///
    /// # Panics
    /// When the script breaks the contract of [`Event`] for this request.
    pub(super) fn play(self, request: &GenerateRequest) -> Result<Play, Refusal> {
        let prompt_tokens = self.prompt_tokens.unwrap_or(7);
        let mut usage = Usage { prompt_tokens, cached_tokens: self.cached_tokens, ..Usage::default() };
        let reasons_at_once = self.reasons_at_once;
        let mut contract = Contract::of(request);
        let mut cues = VecDeque::new();
        for step in self.steps {
            let event = match step {
                Step::Refuse(refusal) => return Err(refusal),
                Step::Gate(gate) => {
                    cues.push_back(Cue::Gate(gate));
                    continue;
                }
                Step::Cut => return Ok(Play { prompt_tokens, reasons_at_once, cues }),
                Step::Emit(event) => event,
                Step::Say { choice, text } => {
                    Event::Delta(delta(choice, text, usage.completion_tokens, request.logprobs))
                }
                Step::Done => Event::Done { usage, timing: TIMING },
            };
            if let Event::Delta(delta) = &event {
                usage.completion_tokens += delta.tokens.len() as u32;
            }
            contract.mind(&event);
            cues.push_back(Cue::Emit(event));
        }
        assert!(contract.at == At::Over, "a script ends with done(), fail() or, knowing what it does, cut()");
        Ok(Play { prompt_tokens, reasons_at_once, cues })
    }
}

/// The timing that a scripted reply reports.
const TIMING: Timing = Timing {
    prepared: Duration::ZERO,
    vision: Duration::ZERO,
    queued: Duration::from_millis(1),
    first_token: Duration::from_millis(2),
    total: Duration::from_millis(3),
};

fn delta(choice: u32, text: String, id: u32, logprobs: Option<u32>) -> Delta {
    let entry = |rank: u32| TokenLogprob {
        id: id + rank,
        bytes: if rank == 0 { text.clone().into_bytes() } else { format!("alt{rank}").into_bytes() },
        logprob: -0.5 - rank as f32,
        top: Vec::new(),
    };
    let logprobs = logprobs.map(|top| TokenLogprob { top: (0..top).map(entry).collect(), ..entry(0) });
    Delta { choice, logprobs: logprobs.into_iter().collect(), tokens: vec![id], text }
}

/// What [`Event`] promises, checked event by event.
struct Contract {
    choices: u32,
    logprobs: Option<u32>,
    at: At,
    finished: BTreeSet<u32>,
}

#[derive(PartialEq, PartialOrd)]
enum At {
    Queued,
    Running,
    Over,
}

impl Contract {
    fn of(request: &GenerateRequest) -> Self {
        assert!(request.choices >= 1, "a request asks for at least one choice");
        let logprobs = request.logprobs;
        Self { choices: request.choices, logprobs, at: At::Queued, finished: BTreeSet::new() }
    }

    fn mind(&mut self, event: &Event) {
        assert!(self.at != At::Over, "{event:?} comes after the last event");
        match event {
            Event::Queued { .. } => assert!(self.at == At::Queued, "{event:?} comes after Started"),
            Event::Started => {
                assert!(self.at == At::Queued, "Started comes twice");
                self.at = At::Running;
            }
            Event::Delta(delta) => {
                self.mind_choice(delta.choice, event);
                let expected = self.logprobs.map_or(0, |_| delta.tokens.len());
                assert_eq!(
                    delta.logprobs.len(),
                    expected,
                    "{event:?}: one entry per token if and only if asked for"
                );
            }
            Event::Finished { choice, .. } => {
                self.mind_choice(*choice, event);
                self.finished.insert(*choice);
            }
            Event::Done { .. } => {
                assert_eq!(self.finished.len(), self.choices as usize, "every choice finishes before Done");
                self.at = At::Over;
            }
            Event::Failed(_) => self.at = At::Over,
        }
    }

    fn mind_choice(&self, choice: u32, event: &Event) {
        assert!(self.at == At::Running, "{event:?} comes before Started");
        assert!(choice < self.choices, "{event:?}: only {} choices were asked for", self.choices);
        assert!(!self.finished.contains(&choice), "{event:?} comes after the choice has finished");
    }
}
