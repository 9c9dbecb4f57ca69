//! `POST /v1/chat/completions`: the next turn of a conversation.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Extension, Json};
use protocol::{Chat, Content, Delta, FinishReason, Message, Prompt, TokenLogprob, Usage};
use serde::Serialize;
use serde_json::Value;

use super::{Access, Endpoint};
use crate::app::App;
use crate::body;
use crate::failure::Problem;
use crate::fields::{self, Fields};
use crate::observe::Call;
use crate::parameters::{self, Delivery, MOST_LOGPROBS, Parameters};
use crate::reply::{self, Choice, finish_reason};
use crate::settings::Limits;
use crate::sse::{self, Chunks, Frames};
use crate::wire::{Head, Kind, UsageTold, token_text, told_logprob};

pub(super) const ENDPOINTS: &[Endpoint] =
    &[Endpoint { path: "/v1/chat/completions", access: Access::Work, route: || post(create) }];

const WHOLE: Kind = Kind { prefix: "chatcmpl-", object: "chat.completion" };
const CHUNK: Kind = Kind { prefix: "chatcmpl-", object: "chat.completion.chunk" };

async fn create(
    State(app): State<Arc<App>>,
    Extension(call): Extension<Call>,
    request: Request,
) -> Result<Response, Problem> {
    let fields = body::read(request, &app.settings).await?;
    let (asked, chat) = read(fields, &app.settings.limits)?;
    let request = asked.request(call.id.to_string(), call.tenant(), Prompt::Chat(chat));
    let reply = reply::admit(&app, &call, vec![request], "messages").await?;
    if asked.delivery == Delivery::Whole {
        let head = Head::new(&app, &reply, &asked, WHOLE);
        let (choices, usage) = reply::collect(reply, asked.choices as usize).await?;
        return Ok(Json(whole(&head, &asked, choices, usage)).into_response());
    }
    let chunks = ChatChunks {
        head: Head::new(&app, &reply, &asked, CHUNK),
        greeted: vec![false; asked.choices as usize],
        delivery: asked.delivery,
    };
    Ok(sse::respond(reply, chunks, app.settings.timeouts.keep_alive))
}

fn read(mut fields: Fields, most: &Limits) -> Result<(Parameters, Chat), Problem> {
    parameters::refuse_unsupported(&mut fields)?;
    let messages = messages(fields.required("messages")?, most)?;
    let mut asked = Parameters::read(&mut fields, most)?;
    asked.logprobs = logprobs(&mut fields)?;
    let chat = Chat { messages, template_options: template_options(&mut fields)? };
    if fields.boolean("echo")?.unwrap_or(false) {
        return Err(Problem::unsupported(
            "echo",
            "a conversation is not repeated; /v1/completions can echo a prompt.",
        ));
    }
    parameters::note_unknown(fields);
    Ok((asked, chat))
}

fn logprobs(fields: &mut Fields) -> Result<Option<u32>, Problem> {
    let wanted = fields.boolean("logprobs")?.unwrap_or(false);
    let top = fields.integer("top_logprobs", 0..=MOST_LOGPROBS)?;
    match (wanted, top) {
        (true, top) => Ok(Some(top.map_or(0, |top| top as u32))),
        (false, None | Some(0)) => Ok(None),
        (false, Some(_)) => {
            Err(Problem::invalid("top_logprobs", "it is only allowed when 'logprobs' is true."))
        }
    }
}

fn template_options(fields: &mut Fields) -> Result<serde_json::Map<String, Value>, Problem> {
    let mut options = fields.object("chat_template_kwargs")?.map(Fields::rest).unwrap_or_default();
    if let Some(add) = fields.boolean("add_generation_prompt")? {
        options.insert("add_generation_prompt".to_owned(), Value::Bool(add));
    }
    Ok(options)
}

fn messages(value: Value, most: &Limits) -> Result<Vec<Message>, Problem> {
    let turns = fields::list(value, "messages")?;
    parameters::at_most(most.messages, turns.len(), "messages", "turns")?;
    if turns.is_empty() {
        return Err(Problem::invalid("messages", "at least one message is needed."));
    }
    turns.into_iter().enumerate().map(|(index, turn)| message(turn, format!("messages[{index}]"))).collect()
}

fn message(turn: Value, path: String) -> Result<Message, Problem> {
    let mut fields = Fields::of(turn, path)?;
    let role = fields.text("role")?.ok_or_else(|| fields.missing("role"))?;
    if !["developer", "system", "user", "assistant", "tool"].contains(&role.as_str()) {
        let told = "expected one of 'developer', 'system', 'user', 'assistant' and 'tool'.";
        return Err(Problem::invalid(fields.path_of("role"), told));
    }
    // The newer name of the same role; templates of the models at hand know the older one only, and leave out what
    // they do not know without a word.
    let role = if role == "developer" { "system".to_owned() } else { role };
    let path = fields.path_of("content");
    let content = fields.take("content").map(|content| text_of(content, &path)).transpose()?;
    if content.is_none() && role != "assistant" {
        return Err(fields.missing("content"));
    }
    Ok(Message { role, content: content.map(Content::Text), extra: fields.rest() })
}

/// Text, or text parts joined by line breaks, since templates of text models expect one text.
fn text_of(content: Value, path: &str) -> Result<String, Problem> {
    let parts = match content {
        Value::String(text) => return Ok(text),
        Value::Array(parts) => parts,
        other => return Err(fields::wrong_type(path, "a string or an array of parts", &other)),
    };
    let part_text = |(index, part)| {
        let mut part = Fields::of(part, format!("{path}[{index}]"))?;
        let kind = part.text("type")?.ok_or_else(|| part.missing("type"))?;
        let text = match kind.as_str() {
            "text" | "refusal" => part.text(&kind)?.ok_or_else(|| part.missing(&kind)),
            other => Err(Problem::unsupported(
                part.path_of("type"),
                format!(
                    "a part of kind '{other}' cannot be read, because the model takes text only; send text parts."
                ),
            )),
        }?;
        Ok(text)
    };
    let texts: Result<Vec<String>, Problem> = parts.into_iter().enumerate().map(part_text).collect();
    Ok(texts?.join("\n"))
}

#[derive(Serialize)]
struct Completion<'a> {
    #[serde(flatten)]
    head: &'a Head,
    choices: Vec<WholeChoice>,
    usage: UsageTold,
}

#[derive(Serialize)]
struct WholeChoice {
    index: usize,
    message: Turn,
    logprobs: Option<Logprobs>,
    finish_reason: Option<&'static str>,
}

#[derive(Serialize)]
struct Turn {
    role: &'static str,
    content: String,
    refusal: Option<String>,
}

#[derive(Serialize)]
struct Chunk<'a> {
    #[serde(flatten)]
    head: &'a Head,
    choices: Vec<ChunkChoice>,
    /// Absent unless asked for, and then null in every chunk but the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<UsageTold>>,
}

#[derive(Serialize)]
struct ChunkChoice {
    index: u32,
    delta: DeltaTold,
    logprobs: Option<Logprobs>,
    finish_reason: Option<&'static str>,
}

#[derive(Default, Serialize)]
struct DeltaTold {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
}

#[derive(Serialize)]
struct Logprobs {
    content: Vec<Position>,
    refusal: Option<Vec<Position>>,
}

#[derive(Serialize)]
struct Position {
    #[serde(flatten)]
    token: Token,
    top_logprobs: Vec<Token>,
}

#[derive(Serialize)]
struct Token {
    token: String,
    logprob: f32,
    bytes: Vec<u8>,
}

impl From<&TokenLogprob> for Token {
    fn from(entry: &TokenLogprob) -> Self {
        Self { token: token_text(&entry.bytes), logprob: told_logprob(entry), bytes: entry.bytes.clone() }
    }
}

impl From<Vec<TokenLogprob>> for Logprobs {
    fn from(entries: Vec<TokenLogprob>) -> Self {
        let position = |entry: &TokenLogprob| Position {
            token: entry.into(),
            top_logprobs: entry.top.iter().map(Token::from).collect(),
        };
        Self { content: entries.iter().map(position).collect(), refusal: None }
    }
}

fn whole<'a>(head: &'a Head, asked: &Parameters, choices: Vec<Choice>, usage: Usage) -> Completion<'a> {
    let told = |(index, choice): (usize, Choice)| WholeChoice {
        index,
        message: Turn { role: "assistant", content: choice.text, refusal: None },
        logprobs: asked.logprobs.map(|_| choice.logprobs.into()),
        finish_reason: choice.finish.map(finish_reason),
    };
    Completion { head, choices: choices.into_iter().enumerate().map(told).collect(), usage: usage.into() }
}

struct ChatChunks {
    head: Head,
    /// For each choice, whether its first chunk, which names the role, was sent.
    greeted: Vec<bool>,
    delivery: Delivery,
}

impl ChatChunks {
    fn chunk(&self, choice: ChunkChoice, frames: &mut Frames) {
        let usage = (self.delivery == Delivery::StreamWithUsage).then_some(None);
        frames.data(&Chunk { head: &self.head, choices: vec![choice], usage });
    }

    fn greet(&mut self, index: u32, frames: &mut Frames) {
        let greeted = self.greeted.get_mut(index as usize);
        if greeted.is_some_and(|greeted| !std::mem::replace(greeted, true)) {
            let delta = DeltaTold { role: Some("assistant"), content: Some(String::new()) };
            self.chunk(ChunkChoice { index, delta, logprobs: None, finish_reason: None }, frames);
        }
    }
}

impl Chunks for ChatChunks {
    fn delta(&mut self, delta: Delta, frames: &mut Frames) {
        self.greet(delta.choice, frames);
        // Text may be held back for a stop text while its tokens are told already.
        if delta.text.is_empty() && delta.logprobs.is_empty() {
            return;
        }
        let logprobs = (!delta.logprobs.is_empty()).then(|| delta.logprobs.into());
        let told = DeltaTold { role: None, content: Some(delta.text) };
        self.chunk(ChunkChoice { index: delta.choice, delta: told, logprobs, finish_reason: None }, frames);
    }

    fn finished(&mut self, index: u32, reason: FinishReason, frames: &mut Frames) {
        self.greet(index, frames);
        let finish_reason = Some(finish_reason(reason));
        self.chunk(ChunkChoice { index, delta: DeltaTold::default(), logprobs: None, finish_reason }, frames);
    }

    fn done(&mut self, usage: Usage, frames: &mut Frames) {
        if self.delivery == Delivery::StreamWithUsage {
            frames.data(&Chunk { head: &self.head, choices: Vec::new(), usage: Some(Some(usage.into())) });
        }
    }
}

#[cfg(test)]
mod tests;
