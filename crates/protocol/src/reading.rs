//! What a client asks of models that read and write nothing, and what it gets: vectors and scores.

use std::time::Duration;

use crate::{Chat, Clip, Failure, Image, Priority, Refusal, RequestId, TenantId, Timing};

/// One request for the vectors of texts, or of what is shown and said in conversations.
#[derive(Clone, Debug)]
pub struct EmbedRequest {
    /// Name for logs.
    pub id: RequestId,
    /// Which model; `None` is the first that embeds.
    pub model: Option<String>,
    /// What they are of, at least one.
    pub inputs: Vec<EmbedInput>,
    /// What the vectors are for.
    pub purpose: Purpose,
    /// Keep that many leading numbers of each vector and scale what is left to unit length (Matryoshka, Kusupati et al.
    /// 2022); `None` keeps all and scales as the model's own files say.
    pub dimensions: Option<u32>,
    /// What happens to a text that is longer than the model reads.
    pub overlong: Overlong,
    /// Whose work this is.
    pub tenant: TenantId,
    /// How urgent it is.
    pub priority: Priority,
    /// Time from admission after which the request is of no use: it then fails wherever it is.
    pub deadline: Option<Duration>,
}

impl EmbedRequest {
    /// A request for the vectors of `texts` with every default.
    pub fn new(id: impl Into<String>, texts: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            id: RequestId(id.into()),
            model: None,
            inputs: texts.into_iter().map(|text| EmbedInput::Text(text.into())).collect(),
            purpose: Purpose::default(),
            dimensions: None,
            overlong: Overlong::default(),
            tenant: TenantId::default(),
            priority: Priority::default(),
            deadline: None,
        }
    }
}

/// What becomes one vector.
#[derive(Clone, Debug, PartialEq)]
pub enum EmbedInput {
    /// Raw text.
    Text(String),
    /// Token ids of the model's own vocabulary; the model's special tokens are put around them unless they are there.
    Tokens(Vec<u32>),
    /// A conversation, rendered by the model's chat template, and what it shows. It is never cut.
    Chat(Box<Shown>),
}

/// A conversation with its pictures.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shown {
    /// What is said.
    pub chat: Chat,
    /// The pictures, as in [`crate::GenerateRequest::images`].
    pub images: Vec<Image>,
    /// The clips, as in [`crate::GenerateRequest::clips`].
    pub clips: Vec<Clip>,
}

/// What a vector is for. Some models were trained to see a prompt before a text that says so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Purpose {
    /// Not said: the model's default prompt, which mostly is none.
    #[default]
    Unsaid,
    /// To search with; models without such a prompt see the bare text.
    Query,
    /// To be found; models without such a prompt see the bare text.
    Document,
    /// As the model's prompt of that name says; it must have one.
    Named(String),
}

/// What happens to a text that is longer than the model reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overlong {
    /// Its end is cut off, and the answer says so.
    #[default]
    Cut,
    /// The request is refused.
    Refuse,
}

/// The vectors of the texts of one request, in their order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Embeddings {
    /// The model that made them.
    pub model: String,
    /// One for each input.
    pub vectors: Vec<Embedding>,
    /// Where the time went.
    pub timing: Timing,
}

/// The vector of one text.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Embedding {
    /// The numbers.
    pub values: Vec<f32>,
    /// Tokens that were read, special ones included.
    pub tokens: u32,
    /// Whether the end of the text was cut off.
    pub is_truncated: bool,
}

/// One request for scores of pairs of texts.
#[derive(Clone, Debug)]
pub struct ScoreRequest {
    /// Name for logs.
    pub id: RequestId,
    /// Which model; `None` is the first that scores.
    pub model: Option<String>,
    /// One for all documents, or one for each.
    pub queries: Vec<String>,
    /// At least one.
    pub documents: Vec<String>,
    /// What happens to texts that are longer than the model reads.
    pub overlong: Overlong,
    /// Whose work this is.
    pub tenant: TenantId,
    /// How urgent it is.
    pub priority: Priority,
    /// Time from admission after which the request is of no use: it then fails wherever it is.
    pub deadline: Option<Duration>,
}

impl ScoreRequest {
    /// A request for how well each of `documents` answers `query`, with every default.
    pub fn new(
        id: impl Into<String>,
        query: impl Into<String>,
        documents: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        Self {
            id: RequestId(id.into()),
            model: None,
            queries: vec![query.into()],
            documents: documents.into_iter().map(Into::into).collect(),
            overlong: Overlong::default(),
            tenant: TenantId::default(),
            priority: Priority::default(),
            deadline: None,
        }
    }
}

/// The scores of one request, one for each document, in their order.
#[derive(Clone, Debug, PartialEq)]
pub struct Scores {
    /// The model that made them.
    pub model: String,
    /// What they are.
    pub measure: Measure,
    /// Higher is better.
    pub values: Vec<f32>,
    /// Tokens that were read, special ones included.
    pub tokens: u32,
    /// Where the time went.
    pub timing: Timing,
}

/// What a score is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// What a classifier says that has read both texts together (a cross-encoder).
    Classifier,
    /// The cosine of the texts' vectors.
    Cosine,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unserved {
    /// The request was not accepted.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The request was accepted and ended without being completed.
    #[error(transparent)]
    Failed(#[from] Failure),
}
