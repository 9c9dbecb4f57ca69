//! Answers as Python gets them.

use futures::StreamExt;
use pyo3::prelude::*;
use tidegate::protocol::{
    Delta, Embeddings, Event, FinishReason, Generation, Reused, Scores, Timing, TokenLogprob, Usage,
};

use crate::errors;

/// A whole answer.
#[derive(IntoPyObject)]
pub(crate) struct Answer {
    id: String,
    model: String,
    prompt_tokens: u32,
    choices: Vec<Choice>,
    usage: Spent,
    timing: Times,
    reused: Option<&'static str>,
}

/// One continuation.
#[derive(Default, IntoPyObject)]
struct Choice {
    text: String,
    tokens: Vec<u32>,
    logprobs: Vec<Logprob>,
    finish_reason: &'static str,
}

/// A token and how probable it was.
#[derive(IntoPyObject)]
struct Logprob {
    id: u32,
    bytes: Vec<u8>,
    logprob: f32,
    top: Vec<(u32, Vec<u8>, f32)>,
}

/// Tokens.
#[derive(IntoPyObject)]
struct Spent {
    prompt_tokens: u32,
    cached_tokens: u32,
    completion_tokens: u32,
    reasoning_tokens: u32,
}

/// Seconds.
#[derive(IntoPyObject)]
struct Times {
    queued: f64,
    first_token: f64,
    total: f64,
}

/// One step in the life of a request; what is not of its kind is left out.
#[derive(Default, IntoPyObject)]
pub(crate) struct Happening {
    kind: &'static str,
    ahead: u32,
    choice: u32,
    text: String,
    tokens: Vec<u32>,
    logprobs: Vec<Logprob>,
    finish_reason: Option<&'static str>,
    usage: Option<Spent>,
    timing: Option<Times>,
}

/// Vectors one behind the other.
#[derive(IntoPyObject)]
pub(crate) struct Vectors {
    model: String,
    /// 32-bit floats in the machine's order.
    values: Vec<u8>,
    width: usize,
    tokens: Vec<u32>,
    truncated: Vec<bool>,
}

/// Scores of documents.
#[derive(IntoPyObject)]
pub(crate) struct Marks {
    model: String,
    values: Vec<f32>,
    tokens: u32,
}

impl From<TokenLogprob> for Logprob {
    fn from(token: TokenLogprob) -> Self {
        let top = token.top.into_iter().map(|other| (other.id, other.bytes, other.logprob));
        Self { id: token.id, bytes: token.bytes, logprob: token.logprob, top: top.collect() }
    }
}

impl From<Usage> for Spent {
    fn from(usage: Usage) -> Self {
        let Usage { prompt_tokens, cached_tokens, completion_tokens, reasoning_tokens } = usage;
        Self { prompt_tokens, cached_tokens, completion_tokens, reasoning_tokens }
    }
}

impl From<Timing> for Times {
    fn from(timing: Timing) -> Self {
        let Timing { queued, first_token, total, .. } = timing;
        Self {
            queued: queued.as_secs_f64(),
            first_token: first_token.as_secs_f64(),
            total: total.as_secs_f64(),
        }
    }
}

impl From<Embeddings> for Vectors {
    fn from(embeddings: Embeddings) -> Self {
        let vectors = &embeddings.vectors;
        let values = vectors.iter().flat_map(|vector| &vector.values).flat_map(|value| value.to_ne_bytes());
        Self {
            values: values.collect(),
            width: vectors.first().map_or(0, |vector| vector.values.len()),
            tokens: vectors.iter().map(|vector| vector.tokens).collect(),
            truncated: vectors.iter().map(|vector| vector.is_truncated).collect(),
            model: embeddings.model,
        }
    }
}

impl From<Scores> for Marks {
    fn from(scores: Scores) -> Self {
        Self { model: scores.model, values: scores.values, tokens: scores.tokens }
    }
}

fn reason(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
    }
}

impl Answer {
    /// Listens to a generation until its end.
    ///
    /// # Errors
    /// Says why it was not completed.
    pub(crate) async fn of(mut generation: Generation) -> PyResult<Self> {
        let mut choices: Vec<Choice> = Vec::new();
        while let Some(event) = generation.next().await {
            match event {
                Event::Delta(delta) => {
                    let choice = at(&mut choices, delta.choice);
                    choice.text += &delta.text;
                    choice.tokens.extend(delta.tokens);
                    choice.logprobs.extend(delta.logprobs.into_iter().map(Logprob::from));
                }
                Event::Finished { choice, reason: why } => {
                    at(&mut choices, choice).finish_reason = reason(why);
                }
                Event::Done { usage, timing } => {
                    return Ok(Self {
                        id: generation.id.0,
                        model: generation.model,
                        prompt_tokens: generation.prompt_tokens,
                        choices,
                        usage: usage.into(),
                        timing: timing.into(),
                        reused: generation.reused.map(|reused| match reused {
                            Reused::InFlight => "in_flight",
                            Reused::Kept => "kept",
                            Reused::Similar { .. } => "similar",
                        }),
                    });
                }
                Event::Failed(failure) => return Err(errors::failed(&failure)),
                Event::Queued { .. } | Event::Started => {}
            }
        }
        Err(errors::exception("EngineError", "the engine ended the stream without a last event", &[]))
    }
}

fn at(choices: &mut Vec<Choice>, index: u32) -> &mut Choice {
    let index = index as usize;
    if choices.len() <= index {
        choices.resize_with(index + 1, Choice::default);
    }
    &mut choices[index]
}

impl Happening {
    /// What an event says.
    ///
    /// # Errors
    /// When it says that the request failed.
    pub(crate) fn of(event: Event) -> PyResult<Self> {
        Ok(match event {
            Event::Queued { ahead } => Self { kind: "queued", ahead, ..Self::default() },
            Event::Started => Self { kind: "started", ..Self::default() },
            Event::Delta(Delta { choice, text, tokens, logprobs }) => {
                let logprobs = logprobs.into_iter().map(Logprob::from).collect();
                Self { kind: "delta", choice, text, tokens, logprobs, ..Self::default() }
            }
            Event::Finished { choice, reason: why } => {
                Self { kind: "finished", choice, finish_reason: Some(reason(why)), ..Self::default() }
            }
            Event::Done { usage, timing } => Self {
                kind: "done",
                usage: Some(usage.into()),
                timing: Some(timing.into()),
                ..Self::default()
            },
            Event::Failed(failure) => return Err(errors::failed(&failure)),
        })
    }
}
