//! The chat dialect's replies, as they are written.

use protocol::{FinishReason, TokenLogprob, Usage};
use serde::Serialize;

use crate::app::App;
use crate::parameters::Parameters;
use crate::reply::{Choice, finish_reason};
use crate::speech::{Said, Speech};
use crate::wire::{Head, UsageTold, token_text, told_logprob};

#[derive(Serialize)]
pub(super) struct Completion<'a> {
    #[serde(flatten)]
    head: &'a Head,
    choices: Vec<WholeChoice>,
    usage: UsageTold,
}

#[derive(Serialize)]
pub(super) struct WholeChoice {
    index: usize,
    message: Turn,
    logprobs: Option<Logprobs>,
    finish_reason: Option<&'static str>,
}

#[derive(Serialize)]
struct Turn {
    role: &'static str,
    /// Null in a turn that only calls tools.
    content: Option<String>,
    refusal: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<ToolCall>,
}

/// A call, or a part of one.
#[derive(Serialize)]
pub(super) struct ToolCall {
    /// Which call of the turn, in a stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    function: FunctionCall,
}

#[derive(Serialize)]
struct FunctionCall {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    arguments: String,
}

impl ToolCall {
    /// The beginning of a call, which names it.
    pub(super) fn named(id: String, name: String) -> Self {
        let function = FunctionCall { name: Some(name), arguments: String::new() };
        Self { index: None, id: Some(id), kind: Some("function"), function }
    }

    /// More of a call that was named.
    pub(super) fn more(arguments: String) -> Self {
        Self { index: None, id: None, kind: None, function: FunctionCall { name: None, arguments } }
    }

    /// The part as a stream tells it.
    pub(super) fn at(self, index: usize) -> Self {
        Self { index: Some(index), ..self }
    }
}

impl WholeChoice {
    /// A choice that has been said, told apart by `speech`.
    pub(super) fn new(choice: Choice, mut speech: Speech, app: &App) -> Self {
        let mut said = Vec::new();
        speech.push(&choice.text, &mut said);
        speech.finish(&mut said);
        let mut turn = Turn {
            role: "assistant",
            content: None,
            refusal: None,
            reasoning_content: None,
            tool_calls: Vec::new(),
        };
        for part in said {
            match part {
                Said::Reasoning(text) => turn.reasoning_content.get_or_insert_default().push_str(&text),
                Said::Answer(text) => turn.content.get_or_insert_default().push_str(&text),
                Said::Call { name } => turn.tool_calls.push(ToolCall::named(app.fresh_id(CALL), name)),
                Said::Arguments(text) => {
                    if let Some(call) = turn.tool_calls.last_mut() {
                        call.function.arguments.push_str(&text);
                    }
                }
            }
        }
        if turn.tool_calls.is_empty() {
            turn.content.get_or_insert_default();
        }
        let finish_reason = choice.finish.map(|reason| {
            told_reason(reason, if turn.tool_calls.is_empty() { Calls::None } else { Calls::Some })
        });
        Self { index: 0, message: turn, logprobs: Some(choice.logprobs.into()), finish_reason }
    }
}

/// What the identities of calls begin with.
pub(super) const CALL: &str = "call_";

#[derive(Serialize)]
pub(super) struct Chunk<'a> {
    #[serde(flatten)]
    pub(super) head: &'a Head,
    pub(super) choices: Vec<ChunkChoice>,
    /// Absent unless asked for, and then null in every chunk but the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) usage: Option<Option<UsageTold>>,
}

#[derive(Serialize)]
pub(super) struct ChunkChoice {
    pub(super) index: u32,
    pub(super) delta: DeltaTold,
    pub(super) logprobs: Option<Logprobs>,
    pub(super) finish_reason: Option<&'static str>,
}

#[derive(Default, Serialize)]
pub(super) struct DeltaTold {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) content: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reasoning_content: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) tool_calls: Vec<ToolCall>,
}

#[derive(Serialize)]
pub(super) struct Logprobs {
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

/// Why a choice ended; one that calls tools and ended by itself waits for what they answer.
pub(super) fn told_reason(reason: FinishReason, calls: Calls) -> &'static str {
    match (reason, calls) {
        (FinishReason::Stop, Calls::Some) => "tool_calls",
        _ => finish_reason(reason),
    }
}

/// Whether a choice has called tools.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Calls {
    None,
    Some,
}

/// The reply, whole.
pub(super) fn whole<'a>(
    head: &'a Head,
    asked: &Parameters,
    choices: Vec<WholeChoice>,
    usage: Usage,
) -> Completion<'a> {
    let numbered = |(index, choice): (usize, WholeChoice)| WholeChoice {
        index,
        logprobs: choice.logprobs.filter(|_| asked.logprobs.is_some()),
        ..choice
    };
    Completion { head, choices: choices.into_iter().enumerate().map(numbered).collect(), usage: usage.into() }
}
