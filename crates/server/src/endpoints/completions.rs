//! `POST /v1/completions`: the continuation of one or several texts.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Extension, Json};
use protocol::{Delta, FinishReason, GenerateRequest, Prompt, TokenLogprob, Usage};
use serde::Serialize;
use serde_json::{Map, Value};

use super::{Access, Endpoint};
use crate::app::App;
use crate::body;
use crate::failure::Problem;
use crate::fields::{self, Fields};
use crate::observe::Call;
use crate::parameters::{self, Delivery, MOST_LOGPROBS, Parameters};
use crate::reply::{self, Choice, finish_reason};
use crate::reuse;
use crate::settings::Limits;
use crate::sse::{self, Chunks, Frames};
use crate::tools::Tools;
use crate::wire::{Head, Kind, UsageTold, token_text, told_logprob};

pub(super) const ENDPOINTS: &[Endpoint] =
    &[Endpoint { path: "/v1/completions", access: Access::Work, route: || post(create) }];

const KIND: Kind = Kind { prefix: "cmpl-", object: "text_completion" };

/// What this dialect means by leaving `max_tokens` out.
const DEFAULT_MAX_TOKENS: u32 = 16;

async fn create(
    State(app): State<Arc<App>>,
    Extension(call): Extension<Call>,
    request: Request,
) -> Result<Response, Problem> {
    let fields = body::read(request, &app.settings).await?;
    let asked = Asked::read(fields, &app.settings.limits)?;
    let reply = reply::admit(&app, &call, asked.requests(&call), "prompt").await?;
    let head = Head::new(&app, &reply, &asked.parameters, KIND);
    let texts = asked.texts();
    let reused = reply.reused;
    if asked.parameters.delivery == Delivery::Whole {
        let (choices, usage) = reply::collect(reply, texts.len()).await?;
        return Ok(reuse::marked(Json(whole(&head, texts, choices, usage)).into_response(), reused));
    }
    let chunks = TextChunks { head, texts, delivery: asked.parameters.delivery };
    Ok(reuse::marked(sse::respond(reply, chunks, app.settings.timeouts.keep_alive), reused))
}

struct Asked {
    parameters: Parameters,
    prompts: Vec<Prompt>,
    echo: Echo,
}

#[derive(Clone, Copy, PartialEq)]
enum Echo {
    No,
    Prompt,
}

impl Asked {
    fn read(mut fields: Fields, most: &Limits) -> Result<Self, Problem> {
        parameters::refuse_unsupported(&mut fields)?;
        let prompts = prompts(fields.required("prompt")?, most)?;
        let mut parameters = Parameters::read(&mut fields, most)?;
        let tools = Tools::read(&mut fields)?;
        if tools.may_be_called() {
            let told = "only a conversation can call tools; send it to /v1/chat/completions.";
            return Err(Problem::unsupported(tools.asked_by(), told));
        }
        parameters.logprobs = fields.integer("logprobs", 0..=MOST_LOGPROBS)?.map(|top| top as u32);
        let limits = &mut parameters.limits;
        limits.max_tokens = limits.max_tokens.or(Some(DEFAULT_MAX_TOKENS.max(limits.min_tokens)));
        let echo = if fields.boolean("echo")?.unwrap_or(false) { Echo::Prompt } else { Echo::No };
        let asked = Self { parameters, prompts, echo };
        asked.check_choices(most)?;
        asked.check_echo()?;
        parameters::note_unknown(fields);
        Ok(asked)
    }

    fn check_choices(&self, most: &Limits) -> Result<(), Problem> {
        let choices = self.prompts.len() as u64 * u64::from(self.parameters.choices);
        if choices <= u64::from(most.choices) {
            return Ok(());
        }
        let told = format!(
            "{choices} continuations over all prompts were asked for, but at most {} are made.",
            most.choices
        );
        Err(Problem::invalid("n", told))
    }

    fn check_echo(&self) -> Result<(), Problem> {
        if self.echo == Echo::No {
            return Ok(());
        }
        if self.parameters.logprobs.is_some() {
            let told = "it cannot be combined with logprobs, because none are computed for the prompt.";
            return Err(Problem::unsupported("echo", told));
        }
        if self.prompts.iter().any(|prompt| matches!(prompt, Prompt::Tokens(_))) {
            return Err(Problem::unsupported("echo", "only prompts given as text can be echoed."));
        }
        Ok(())
    }

    fn requests(&self, call: &Call) -> Vec<GenerateRequest> {
        let alone = self.prompts.len() == 1;
        let request = |(index, prompt): (usize, &Prompt)| {
            let id = if alone { call.id.to_string() } else { format!("{}-{index}", call.id) };
            self.parameters.request(id, call.tenant(), prompt.clone())
        };
        self.prompts.iter().enumerate().map(request).collect()
    }

    /// One for each choice of the reply, numbered through over the prompts.
    fn texts(&self) -> Vec<Text> {
        let text = |prompt: &Prompt| match (self.echo, prompt) {
            (Echo::Prompt, Prompt::Text(prompt)) => {
                Text { echo: prompt.clone(), ..Text::new(&self.parameters) }
            }
            _ => Text::new(&self.parameters),
        };
        let choices = self.parameters.choices as usize;
        self.prompts.iter().flat_map(|prompt| std::iter::repeat_n(text(prompt), choices)).collect()
    }
}

fn prompts(value: Value, most: &Limits) -> Result<Vec<Prompt>, Problem> {
    let items = match value {
        Value::String(text) => return Ok(vec![Prompt::Text(text)]),
        Value::Array(items) => items,
        other => return Err(fields::wrong_type("prompt", "a string or an array", &other)),
    };
    if matches!(items.first(), Some(Value::Number(_))) {
        return Ok(vec![Prompt::Tokens(parameters::token_ids(&items, "prompt")?)]);
    }
    if items.is_empty() {
        return Err(Problem::invalid("prompt", "at least one prompt is needed."));
    }
    parameters::at_most(most.prompts, items.len(), "prompt", "prompts")?;
    items.into_iter().enumerate().map(|(index, item)| prompt(item, &format!("prompt[{index}]"))).collect()
}

fn prompt(item: Value, path: &str) -> Result<Prompt, Problem> {
    match item {
        Value::String(text) => Ok(Prompt::Text(text)),
        Value::Array(ids) if ids.is_empty() => {
            Err(Problem::invalid(path, "at least one token id is needed."))
        }
        Value::Array(ids) => Ok(Prompt::Tokens(parameters::token_ids(&ids, path)?)),
        other => Err(fields::wrong_type(path, "a string or an array of token ids", &other)),
    }
}

#[derive(Serialize)]
struct Completion<'a> {
    #[serde(flatten)]
    head: &'a Head,
    choices: Vec<ChoiceTold>,
    /// Absent from a chunk unless asked for, and then null in every chunk but the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<UsageTold>>,
}

#[derive(Serialize)]
struct ChoiceTold {
    index: usize,
    text: String,
    logprobs: Option<Logprobs>,
    finish_reason: Option<&'static str>,
}

#[derive(Default, Serialize)]
struct Logprobs {
    tokens: Vec<String>,
    token_logprobs: Vec<f32>,
    top_logprobs: Vec<Map<String, Value>>,
    text_offset: Vec<usize>,
}

/// What one choice has said so far.
#[derive(Clone, Default)]
struct Text {
    /// The prompt, until it has been echoed.
    echo: String,
    logprobs: Option<u32>,
    /// Characters that the tokens told so far have finished.
    characters: usize,
    /// Bytes that may become one more.
    unfinished: Vec<u8>,
}

impl Text {
    fn new(parameters: &Parameters) -> Self {
        Self { logprobs: parameters.logprobs, ..Self::default() }
    }

    fn told(&mut self, text: &str) -> String {
        std::mem::take(&mut self.echo) + text
    }

    fn told_logprobs(&mut self, entries: &[TokenLogprob]) -> Option<Logprobs> {
        self.logprobs?;
        let mut told = Logprobs::default();
        for entry in entries {
            told.tokens.push(token_text(&entry.bytes));
            told.token_logprobs.push(told_logprob(entry));
            told.top_logprobs.push(top_logprobs(entry));
            told.text_offset.push(self.offset(&entry.bytes));
        }
        Some(told)
    }

    /// The place in the text, in characters, of the character that a token begins or continues. Bytes that are no
    /// character count as the replacement character that stands for them in the text.
    fn offset(&mut self, bytes: &[u8]) -> usize {
        let begins = self.unfinished.len();
        let mut all = std::mem::take(&mut self.unfinished);
        all.extend_from_slice(bytes);
        let (mut offset, mut end) = (self.characters, 0);
        for chunk in all.utf8_chunks() {
            let broken = Some(chunk.invalid().len()).filter(|length| *length > 0);
            for length in chunk.valid().chars().map(char::len_utf8).chain(broken) {
                end += length;
                if end == all.len() && may_go_on(&all[end - length..]) {
                    self.unfinished = all[end - length..].to_vec();
                    break;
                }
                self.characters += 1;
                offset += usize::from(end <= begins);
            }
        }
        offset
    }
}

/// Whether these bytes are the beginning of a character.
fn may_go_on(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

/// The most probable tokens, and the sampled one wherever it ranks.
fn top_logprobs(entry: &TokenLogprob) -> Map<String, Value> {
    let sampled = std::iter::once(entry);
    entry.top.iter().chain(sampled).map(|one| (token_text(&one.bytes), told_logprob(one).into())).collect()
}

fn whole(head: &Head, texts: Vec<Text>, choices: Vec<Choice>, usage: Usage) -> Completion<'_> {
    let told = |(index, (mut text, choice)): (usize, (Text, Choice))| ChoiceTold {
        index,
        text: text.told(&choice.text),
        logprobs: text.told_logprobs(&choice.logprobs),
        finish_reason: choice.finish.map(finish_reason),
    };
    let choices = texts.into_iter().zip(choices).enumerate().map(told).collect();
    Completion { head, choices, usage: Some(Some(usage.into())) }
}

struct TextChunks {
    head: Head,
    texts: Vec<Text>,
    delivery: Delivery,
}

impl TextChunks {
    fn chunk(&self, choice: ChoiceTold, frames: &mut Frames) {
        let usage = (self.delivery == Delivery::StreamWithUsage).then_some(None);
        frames.data(&Completion { head: &self.head, choices: vec![choice], usage });
    }
}

impl Chunks for TextChunks {
    fn delta(&mut self, delta: Delta, frames: &mut Frames) {
        let index = delta.choice as usize;
        let Some(text) = self.texts.get_mut(index) else { return };
        let told = text.told(&delta.text);
        let logprobs = text.told_logprobs(&delta.logprobs).filter(|logprobs| !logprobs.tokens.is_empty());
        // Text may be held back for a stop text while its tokens are told already.
        if !told.is_empty() || logprobs.is_some() {
            self.chunk(ChoiceTold { index, text: told, logprobs, finish_reason: None }, frames);
        }
    }

    fn finished(&mut self, choice: u32, reason: FinishReason, frames: &mut Frames) {
        let index = choice as usize;
        let Some(text) = self.texts.get_mut(index).map(|text| text.told("")) else { return };
        self.chunk(
            ChoiceTold { index, text, logprobs: None, finish_reason: Some(finish_reason(reason)) },
            frames,
        );
    }

    fn done(&mut self, usage: Usage, frames: &mut Frames) {
        if self.delivery == Delivery::StreamWithUsage {
            let usage = Some(Some(usage.into()));
            frames.data(&Completion { head: &self.head, choices: Vec::new(), usage });
        }
    }
}

#[cfg(test)]
mod tests;
