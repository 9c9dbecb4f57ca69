//! The parts that replies of chat and text completions have in common.

use std::fmt::Write;
use std::sync::Arc;

use protocol::{TokenLogprob, Usage};
use serde::Serialize;

use crate::app::{App, unix_seconds};
use crate::parameters::Parameters;
use crate::reply::Reply;

/// The first fields of a reply and of each of its chunks, the same in all of them.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Head {
    id: String,
    object: &'static str,
    created: u64,
    model: String,
    system_fingerprint: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    service_tier: Option<&'static str>,
}

impl Head {
    pub(crate) fn new(app: &Arc<App>, reply: &Reply, asked: &Parameters, kind: Kind) -> Self {
        Self {
            id: app.fresh_id(kind.prefix),
            object: kind.object,
            created: unix_seconds(),
            model: reply.model.clone(),
            system_fingerprint: app.fingerprint(&reply.model),
            service_tier: asked.urgency.tier,
        }
    }
}

/// What a reply is called.
#[derive(Clone, Copy)]
pub(crate) struct Kind {
    pub(crate) prefix: &'static str,
    pub(crate) object: &'static str,
}

/// Tokens read and written.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct UsageTold {
    prompt_tokens: u32,
    completion_tokens: u32,
    total_tokens: u32,
    prompt_tokens_details: PromptDetails,
    completion_tokens_details: CompletionDetails,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct PromptDetails {
    cached_tokens: u32,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct CompletionDetails {
    reasoning_tokens: u32,
}

impl From<Usage> for UsageTold {
    fn from(usage: Usage) -> Self {
        let Usage { prompt_tokens, cached_tokens, completion_tokens, reasoning_tokens } = usage;
        Self {
            prompt_tokens,
            completion_tokens,
            total_tokens: prompt_tokens + completion_tokens,
            prompt_tokens_details: PromptDetails { cached_tokens },
            completion_tokens_details: CompletionDetails { reasoning_tokens },
        }
    }
}

/// A token as text. One that is only part of a character is spelled `bytes:\xe2\x80`, which keeps tokens that
/// differ apart and is what clients of this dialect know.
pub(crate) fn token_text(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().fold("bytes:".to_owned(), |mut text, byte| {
            // Writing to a string cannot fail.
            let _ = write!(text, "\\x{byte:02x}");
            text
        }),
    }
}

/// JSON has no infinity; clients know -9999 as the logarithm of next to nothing.
pub(crate) fn told_logprob(entry: &TokenLogprob) -> f32 {
    if entry.logprob.is_finite() { entry.logprob } else { -9999.0 }
}
