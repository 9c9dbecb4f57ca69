//! What a client asks for. Every `Option` that is `None` means "as the model's own defaults say".

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::Form;

/// Names one request in logs, metrics and streams. Chosen by the client or by the server; never interpreted.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RequestId(pub String);

/// Whose work a request is: fairness, limits and caches are scoped by it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TenantId(pub String);

impl Default for TenantId {
    fn default() -> Self {
        Self("default".to_owned())
    }
}

/// Urgency band, the most urgent first. Aging keeps the lower bands from starving.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// Someone is waiting and has paid to wait less.
    High,
    /// Someone is waiting.
    #[default]
    Normal,
    /// Nobody is waiting: batch work that fills idle time.
    Low,
}

/// One request for generated text.
#[derive(Clone, Debug)]
pub struct GenerateRequest {
    /// Name for logs and streams.
    pub id: RequestId,
    /// Which model; `None` is the default model.
    pub model: Option<String>,
    /// What to continue.
    pub prompt: Prompt,
    /// The pictures of the conversation, in the order in which its parts of kind `image` or `image_url` stand.
    pub images: Vec<Image>,
    /// The clips of the conversation, in the order in which its parts of kind `video` stand.
    pub clips: Vec<Clip>,
    /// How to choose tokens.
    pub sampling: Sampling,
    /// When to stop.
    pub limits: Limits,
    /// The form that every choice must have; `None` leaves it free. A model that reasons before it answers may do so,
    /// and only its answer is kept to the form.
    pub form: Option<Form>,
    /// Number of independent continuations, at least 1.
    pub choices: u32,
    /// With `Some(k)`: report the log-probability of every sampled token and of the `k` most probable ones.
    pub logprobs: Option<u32>,
    /// Whose work this is.
    pub tenant: TenantId,
    /// How urgent it is.
    pub priority: Priority,
    /// Time from admission after which the request is of no use: it then fails wherever it is.
    pub deadline: Option<Duration>,
    /// Keys and values of prompts are shared among requests of one tenant with the same salt, and with nobody else.
    pub cache_salt: Option<String>,
    /// Whose computing it may be answered from.
    pub sharing: Sharing,
}

/// Whose computing a request may be answered from. It is always its own tenant's.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Sharing {
    /// That of the same request, if the answer is determined (greedy, or with a seed): nobody can tell the difference.
    #[default]
    Identical,
    /// Nobody's.
    None,
    /// Also that of a request whose prompt is this similar, from 0 to 1, and which is the same otherwise. The answer may
    /// be the wrong one; [`crate::Generation::reused`] tells.
    Similar {
        /// The least similarity.
        least: f32,
    },
}

impl GenerateRequest {
    /// A request for one continuation of `prompt` with every default.
    pub fn new(id: impl Into<String>, prompt: Prompt) -> Self {
        Self {
            id: RequestId(id.into()),
            model: None,
            prompt,
            images: Vec::new(),
            clips: Vec::new(),
            sampling: Sampling::default(),
            limits: Limits::default(),
            form: None,
            choices: 1,
            logprobs: None,
            tenant: TenantId::default(),
            priority: Priority::default(),
            deadline: None,
            cache_salt: None,
            sharing: Sharing::Identical,
        }
    }
}

/// A picture as it came: an encoded file that nobody has looked into.
#[derive(Clone, PartialEq, Eq)]
pub struct Image {
    /// The bytes of the file.
    pub bytes: Arc<[u8]>,
}

impl fmt::Debug for Image {
    /// Says how large it is; the bytes are nobody's to read in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Image({} bytes)", self.bytes.len())
    }
}

/// A clip as it came: its frames, all of which are used.
#[derive(Clone, Debug, PartialEq)]
pub struct Clip {
    /// The frames in order, all of one size.
    pub frames: Vec<Image>,
    /// How many are shown in a second, by which the model is told the time of each; `None` is the rate that its own files
    /// ask for.
    pub fps: Option<f64>,
}

/// What to continue.
#[derive(Clone, Debug)]
pub enum Prompt {
    /// Raw text, tokenised as it stands (special tokens written in it are parsed as such).
    Text(String),
    /// Token ids of the model's own vocabulary.
    Tokens(Vec<u32>),
    /// A conversation, rendered by the model's chat template.
    Chat(Chat),
}

impl Prompt {
    /// Bytes of text, as a measure of the work to read it. Ids count nothing: they are ready.
    pub fn text_bytes(&self) -> usize {
        match self {
            Self::Tokens(_) => 0,
            Self::Text(text) => text.len(),
            Self::Chat(chat) => chat.text_bytes(),
        }
    }
}

/// A conversation and the options of the template that renders it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Chat {
    /// The turns, oldest first.
    pub messages: Vec<Message>,
    /// Extra variables for the template (`tools`, `enable_thinking`, …). `add_generation_prompt` is true unless
    /// given here.
    pub template_options: Map<String, Value>,
}

impl Chat {
    /// Bytes of text.
    pub fn text_bytes(&self) -> usize {
        self.messages.iter().filter_map(|message| message.content.as_ref()).map(Content::bytes).sum()
    }
}

/// One turn of a conversation. Fields beyond role and content (`name`, `tool_calls`, …) reach the template unchanged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `developer`, `user`, `assistant`, `tool`, or what else the template understands.
    pub role: String,
    /// What was said; an assistant turn that only calls tools has none.
    #[serde(default)]
    pub content: Option<Content>,
    /// Everything else that the client sent with the turn.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Message {
    /// A turn of plain text.
    pub fn text(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: Some(Content::Text(content.into())), extra: Map::new() }
    }
}

/// The content of a turn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Content {
    /// Plain text.
    Text(String),
    /// A list of typed parts.
    Parts(Vec<Part>),
}

impl Content {
    /// All of its texts, end to end.
    pub(crate) fn texts(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Parts(parts) => {
                let fields = parts.iter().flat_map(|part| part.fields.values());
                fields.filter_map(Value::as_str).collect()
            }
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Parts(parts) => {
                let fields = parts.iter().flat_map(|part| part.fields.values());
                fields.filter_map(Value::as_str).map(str::len).sum()
            }
        }
    }
}

/// One part of a turn's content.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// `text`, `image_url`, …
    #[serde(rename = "type")]
    pub kind: String,
    /// The payload, under the key that the kind implies.
    #[serde(flatten)]
    pub fields: Map<String, Value>,
}

/// How the next token is chosen. Applied in the order: repetition, frequency and presence penalties, logit bias,
/// temperature, top-k, top-p, min-p.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sampling {
    /// 0 is greedy.
    pub temperature: Option<f32>,
    /// Keep the `k` most probable tokens; 0 keeps all.
    pub top_k: Option<u32>,
    /// Keep the smallest set of most probable tokens whose total reaches `p`.
    pub top_p: Option<f32>,
    /// Drop tokens less probable than this share of the most probable one.
    pub min_p: Option<f32>,
    /// Multiplicative penalty on tokens seen in prompt or output (1 = none).
    pub repetition_penalty: Option<f32>,
    /// Subtracted once per occurrence in the output.
    pub frequency_penalty: f32,
    /// Subtracted once if the token occurs in the output.
    pub presence_penalty: f32,
    /// Added to the logit of a token id.
    pub logit_bias: Vec<(u32, f32)>,
    /// Same seed, same request, same tokens. `None` draws a fresh seed.
    pub seed: Option<u64>,
}

/// When a continuation ends.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Limits {
    /// At most this many new tokens; `None` is what fits the context.
    pub max_tokens: Option<u32>,
    /// End-of-sequence and stop tokens are not sampled before this many tokens.
    pub min_tokens: u32,
    /// Texts that end the continuation and are not part of it.
    pub stop: Vec<String>,
    /// Token ids that end the continuation, beside the model's own.
    pub stop_token_ids: Vec<u32>,
    /// Do not end at the model's own end-of-sequence tokens.
    pub ignore_eos: bool,
}
