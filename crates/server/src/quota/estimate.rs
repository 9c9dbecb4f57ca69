//! What a request is likely to take, before it has been tokenised.

use protocol::{Clip, EmbedInput, EmbedRequest, GenerateRequest, Image, Prompt, ScoreRequest};

/// Bytes of a token, as the vocabularies of language models have them on average.
const TOKEN_BYTES: usize = 4;

/// Tokens of a picture; one of 512 by 512 pixels has as many for Qwen3-VL.
const PICTURE_TOKENS: usize = 256;

/// Tokens of a frame of a clip; two of them are one step of time.
const FRAME_TOKENS: usize = PICTURE_TOKENS / 2;

/// Tokens that a request is likely to take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Estimate {
    /// Those of its prompt, and of replies that have a bound.
    pub(crate) known: u32,
    /// Replies without a bound.
    pub(crate) open: u32,
}

impl From<&[GenerateRequest]> for Estimate {
    fn from(requests: &[GenerateRequest]) -> Self {
        requests.iter().fold(Self::default(), |sum, request| {
            let prompt = match &request.prompt {
                Prompt::Tokens(ids) => ids.len(),
                prompt => tokens(prompt.text_bytes()),
            };
            let read = prompt.saturating_add(shown(&request.images, &request.clips));
            let (written, open) = match request.limits.max_tokens {
                Some(most) => (most.saturating_mul(request.choices), 0),
                None => (0, request.choices),
            };
            Self {
                known: sum.known.saturating_add(count(read)).saturating_add(written),
                open: sum.open.saturating_add(open),
            }
        })
    }
}

impl From<&EmbedRequest> for Estimate {
    fn from(request: &EmbedRequest) -> Self {
        let read = request.inputs.iter().map(|input| match input {
            EmbedInput::Text(text) => tokens(text.len()),
            EmbedInput::Tokens(ids) => ids.len(),
            EmbedInput::Chat(chat) => tokens(chat.chat.text_bytes()) + shown(&chat.images, &chat.clips),
        });
        Self { known: count(read.sum()), open: 0 }
    }
}

impl From<&ScoreRequest> for Estimate {
    /// A query that is alone is read again with every document.
    fn from(request: &ScoreRequest) -> Self {
        let bytes = |texts: &[String]| texts.iter().map(String::len).sum::<usize>();
        let times = if request.queries.len() == 1 { request.documents.len() } else { 1 };
        let read = bytes(&request.queries).saturating_mul(times).saturating_add(bytes(&request.documents));
        Self { known: count(tokens(read)), open: 0 }
    }
}

fn shown(images: &[Image], clips: &[Clip]) -> usize {
    let frames: usize = clips.iter().map(|clip| clip.frames.len()).sum();
    images.len() * PICTURE_TOKENS + frames * FRAME_TOKENS
}

fn tokens(bytes: usize) -> usize {
    bytes.div_ceil(TOKEN_BYTES)
}

fn count(tokens: usize) -> u32 {
    u32::try_from(tokens).unwrap_or(u32::MAX)
}
