//! Requests as Python gives them: dictionaries that `tidegate/engine.py` makes.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use tidegate::protocol::{
    Chat, EmbedInput, EmbedRequest, GenerateRequest, Image, Limits, Message, Overlong, Priority, Prompt,
    Purpose, Sampling, ScoreRequest, Sharing, Shown, TenantId,
};

/// A request for text.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct Asked {
    prompt: AskedPrompt,
    /// Encoded files, in the order in which the conversation names them.
    images: Vec<PyBackedBytes>,
    sampling: AskedSampling,
    limits: AskedLimits,
    terms: AskedTerms,
    /// A form as JSON.
    form: Option<String>,
    choices: u32,
    logprobs: Option<u32>,
    cache_salt: Option<String>,
    /// `identical` or `none`.
    sharing: String,
}

#[derive(FromPyObject)]
enum AskedPrompt {
    Text(String),
    Tokens(Vec<u32>),
    #[pyo3(from_item_all)]
    Chat {
        messages: String,
        template_options: String,
    },
}

#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct AskedSampling {
    temperature: Option<f32>,
    top_k: Option<u32>,
    top_p: Option<f32>,
    min_p: Option<f32>,
    repetition_penalty: Option<f32>,
    frequency_penalty: f32,
    presence_penalty: f32,
    logit_bias: Vec<(u32, f32)>,
    seed: Option<u64>,
}

#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct AskedLimits {
    max_tokens: Option<u32>,
    min_tokens: u32,
    stop: Vec<String>,
    stop_token_ids: Vec<u32>,
    ignore_eos: bool,
}

/// What every request says besides its work.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct AskedTerms {
    id: Option<String>,
    model: Option<String>,
    tenant: Option<String>,
    priority: String,
    timeout: Option<f64>,
}

/// A request for vectors.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct AskedVectors {
    inputs: Vec<AskedText>,
    purpose: Option<String>,
    dimensions: Option<u32>,
    overlong: String,
    terms: AskedTerms,
}

#[derive(FromPyObject)]
enum AskedText {
    Text(String),
    Tokens(Vec<u32>),
    #[pyo3(from_item_all)]
    Chat {
        messages: String,
        images: Vec<PyBackedBytes>,
    },
}

/// A request for scores.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct AskedScores {
    queries: Vec<String>,
    documents: Vec<String>,
    overlong: String,
    terms: AskedTerms,
}

fn wrong(message: String) -> PyErr {
    PyValueError::new_err(message)
}

/// Seconds as a time. What is no time is refused rather than rounded.
pub(crate) fn seconds(name: &str, value: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(value)
        .map_err(|_| wrong(format!("{name}={value} is no time; give seconds, 0 or more")))
}

fn priority(name: &str) -> PyResult<Priority> {
    match name {
        "high" => Ok(Priority::High),
        "normal" => Ok(Priority::Normal),
        "low" => Ok(Priority::Low),
        _ => Err(wrong(format!("priority='{name}'; give high, normal or low"))),
    }
}

fn overlong(name: &str) -> PyResult<Overlong> {
    match name {
        "cut" => Ok(Overlong::Cut),
        "refuse" => Ok(Overlong::Refuse),
        _ => Err(wrong(format!("overlong='{name}'; give cut or refuse"))),
    }
}

/// Pictures from the bytes of their files.
fn files(images: &[PyBackedBytes]) -> Vec<Image> {
    images.iter().map(|image| Image { bytes: image.as_ref().into() }).collect()
}

fn json<T: serde::de::DeserializeOwned>(what: &str, text: &str) -> PyResult<T> {
    serde_json::from_str(text).map_err(|error| wrong(format!("the {what} cannot be read: {error}")))
}

/// A name for a request that was not given one.
fn fresh() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    format!("python-{}", COUNT.fetch_add(1, Relaxed))
}

/// The parts of every request that say whose it is.
struct Terms {
    id: String,
    model: Option<String>,
    tenant: TenantId,
    priority: Priority,
    deadline: Option<Duration>,
}

impl AskedTerms {
    fn terms(self) -> PyResult<Terms> {
        Ok(Terms {
            id: self.id.unwrap_or_else(fresh),
            model: self.model,
            tenant: self.tenant.map_or_else(TenantId::default, TenantId),
            priority: priority(&self.priority)?,
            deadline: self.timeout.map(|timeout| seconds("timeout", timeout)).transpose()?,
        })
    }
}

impl Asked {
    pub(crate) fn request(self) -> PyResult<GenerateRequest> {
        let prompt = match self.prompt {
            AskedPrompt::Text(text) => Prompt::Text(text),
            AskedPrompt::Tokens(tokens) => Prompt::Tokens(tokens),
            AskedPrompt::Chat { messages, template_options } => Prompt::Chat(Chat {
                messages: json::<Vec<Message>>("messages", &messages)?,
                template_options: json("template options", &template_options)?,
            }),
        };
        let AskedSampling { temperature, top_k, top_p, min_p, repetition_penalty, .. } = self.sampling;
        let AskedSampling { frequency_penalty, presence_penalty, logit_bias, seed, .. } = self.sampling;
        let AskedLimits { max_tokens, min_tokens, stop, stop_token_ids, ignore_eos } = self.limits;
        let terms = self.terms.terms()?;
        Ok(GenerateRequest {
            model: terms.model,
            images: files(&self.images),
            sampling: Sampling {
                temperature,
                top_k,
                top_p,
                min_p,
                repetition_penalty,
                frequency_penalty,
                presence_penalty,
                logit_bias,
                seed,
            },
            limits: Limits { max_tokens, min_tokens, stop, stop_token_ids, ignore_eos },
            form: self.form.map(|form| json("form", &form)).transpose()?,
            choices: self.choices,
            logprobs: self.logprobs,
            tenant: terms.tenant,
            priority: terms.priority,
            deadline: terms.deadline,
            cache_salt: self.cache_salt,
            sharing: if self.sharing == "none" { Sharing::None } else { Sharing::Identical },
            ..GenerateRequest::new(terms.id, prompt)
        })
    }
}

impl AskedVectors {
    pub(crate) fn request(self) -> PyResult<EmbedRequest> {
        let terms = self.terms.terms()?;
        let input = |text| {
            Ok(match text {
                AskedText::Text(text) => EmbedInput::Text(text),
                AskedText::Tokens(tokens) => EmbedInput::Tokens(tokens),
                AskedText::Chat { messages, images } => EmbedInput::Chat(Box::new(Shown {
                    chat: Chat { messages: json::<Vec<Message>>("messages", &messages)?, ..Chat::default() },
                    images: files(&images),
                    clips: Vec::new(),
                })),
            })
        };
        Ok(EmbedRequest {
            model: terms.model,
            inputs: self.inputs.into_iter().map(input).collect::<PyResult<_>>()?,
            purpose: match self.purpose.as_deref() {
                None => Purpose::Unsaid,
                Some("query") => Purpose::Query,
                Some("document") => Purpose::Document,
                Some(name) => Purpose::Named(name.to_owned()),
            },
            dimensions: self.dimensions,
            overlong: overlong(&self.overlong)?,
            tenant: terms.tenant,
            priority: terms.priority,
            deadline: terms.deadline,
            ..EmbedRequest::new(terms.id, [] as [&str; 0])
        })
    }
}

impl AskedScores {
    pub(crate) fn request(self) -> PyResult<ScoreRequest> {
        let terms = self.terms.terms()?;
        Ok(ScoreRequest {
            model: terms.model,
            queries: self.queries,
            documents: self.documents,
            overlong: overlong(&self.overlong)?,
            tenant: terms.tenant,
            priority: terms.priority,
            deadline: terms.deadline,
            ..ScoreRequest::new(terms.id, "", [] as [&str; 0])
        })
    }
}
