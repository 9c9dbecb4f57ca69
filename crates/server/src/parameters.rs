//! The parameters that chat and text completions share: how to sample, when to stop, how urgent it is.

mod unsupported;

use std::time::Duration;

use protocol::{Form, GenerateRequest, Limits, Priority, Prompt, RequestId, Sampling, Sharing, TenantId};
use serde_json::Value;

use crate::failure::Problem;
use crate::fields::{self, Fields};
use crate::forms;
use crate::reuse;
use crate::settings;

pub(crate) use unsupported::refuse_unsupported;

/// The most log-probabilities per position that may be asked for.
pub(crate) const MOST_LOGPROBS: i64 = 20;

/// What was asked for, apart from the prompt.
#[derive(Clone, Debug)]
pub(crate) struct Parameters {
    pub(crate) model: Option<String>,
    pub(crate) sampling: Sampling,
    pub(crate) limits: Limits,
    pub(crate) choices: u32,
    pub(crate) form: Option<Form>,
    pub(crate) logprobs: Option<u32>,
    pub(crate) urgency: Urgency,
    pub(crate) deadline: Option<Duration>,
    pub(crate) cache_salt: Option<String>,
    pub(crate) sharing: Sharing,
    pub(crate) delivery: Delivery,
}

/// Whether the reply comes at once or piece by piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivery {
    Whole,
    Stream,
    /// With a last chunk that tells the tokens used.
    StreamWithUsage,
}

/// How urgent the request is, and the service tier to echo if one was named.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Urgency {
    pub(crate) priority: Priority,
    pub(crate) tier: Option<&'static str>,
}

impl Parameters {
    /// Reads everything but `logprobs`, which each endpoint spells its own way.
    pub(crate) fn read(fields: &mut Fields, most: &settings::Limits) -> Result<Self, Problem> {
        Ok(Self {
            model: fields.text("model")?,
            sampling: sampling(fields, most)?,
            limits: limits(fields, most)?,
            choices: choices(fields, most)?,
            form: forms::read(fields)?,
            logprobs: None,
            urgency: urgency(fields)?,
            deadline: fields.number("timeout", 0.001..=1e6)?.map(Duration::from_secs_f32),
            cache_salt: fields.text("cache_salt")?,
            sharing: reuse::read(fields)?,
            delivery: delivery(fields)?,
        })
    }

    pub(crate) fn request(&self, id: String, tenant: TenantId, prompt: Prompt) -> GenerateRequest {
        GenerateRequest {
            id: RequestId(id),
            model: self.model.clone(),
            prompt,
            images: Vec::new(),
            clips: Vec::new(),
            sampling: self.sampling.clone(),
            limits: self.limits.clone(),
            form: self.form.clone(),
            choices: self.choices,
            logprobs: self.logprobs,
            tenant,
            priority: self.urgency.priority,
            deadline: self.deadline,
            cache_salt: self.cache_salt.clone(),
            sharing: self.sharing,
        }
    }
}

/// Names, not values, of parameters that nobody read: harmless ones, since the others were refused.
pub(crate) fn note_unknown(fields: Fields) {
    let rest = fields.rest();
    if !rest.is_empty() {
        let names: Vec<&str> = rest.keys().map(String::as_str).take(16).collect();
        tracing::debug!(?names, "parameters without effect");
    }
}

fn sampling(fields: &mut Fields, most: &settings::Limits) -> Result<Sampling, Problem> {
    Ok(Sampling {
        temperature: fields.number("temperature", 0.0..=2.0)?,
        top_k: top_k(fields)?,
        top_p: fields.number("top_p", 0.0..=1.0)?,
        min_p: fields.number("min_p", 0.0..=1.0)?,
        repetition_penalty: fields.number("repetition_penalty", 0.01..=10.0)?,
        frequency_penalty: fields.number("frequency_penalty", -2.0..=2.0)?.unwrap_or(0.0),
        presence_penalty: fields.number("presence_penalty", -2.0..=2.0)?.unwrap_or(0.0),
        logit_bias: logit_bias(fields, most)?,
        seed: seed(fields)?,
    })
}

/// Both -1 and 0 are in use for "all tokens".
fn top_k(fields: &mut Fields) -> Result<Option<u32>, Problem> {
    let top_k = fields.integer("top_k", -1..=i64::from(u32::MAX))?;
    Ok(top_k.map(|k| u32::try_from(k).unwrap_or(0)))
}

/// Client libraries send any 64-bit integer, with or without a sign; only its bits matter.
fn seed(fields: &mut Fields) -> Result<Option<u64>, Problem> {
    if let Some(seed) = fields.peek("seed").and_then(Value::as_u64) {
        fields.take("seed");
        return Ok(Some(seed));
    }
    Ok(fields.integer("seed", i64::MIN..=i64::MAX)?.map(i64::cast_unsigned))
}

fn logit_bias(fields: &mut Fields, most: &settings::Limits) -> Result<Vec<(u32, f32)>, Problem> {
    let path = fields.path_of("logit_bias");
    let Some(biases) = fields.object("logit_bias")? else { return Ok(Vec::new()) };
    let biases = biases.rest();
    at_most(most.token_entries, biases.len(), &path, "entries")?;
    let read = |(token, bias): (String, Value)| {
        let path = format!("{path}.{token}");
        let id = token
            .parse()
            .map_err(|_| Problem::invalid(&path, "the key must be a token id, as in \"42\"."))?;
        Ok((id, fields::number(&bias, path, &(-100.0..=100.0))?))
    };
    biases.into_iter().map(read).collect()
}

fn limits(fields: &mut Fields, most: &settings::Limits) -> Result<Limits, Problem> {
    let limits = Limits {
        max_tokens: max_tokens(fields)?,
        min_tokens: fields.count("min_tokens", 0)?.unwrap_or(0),
        stop: stop(fields, most)?,
        stop_token_ids: stop_token_ids(fields, most)?,
        ignore_eos: fields.boolean("ignore_eos")?.unwrap_or(false),
    };
    if limits.max_tokens.is_some_and(|max_tokens| max_tokens < limits.min_tokens) {
        return Err(Problem::invalid("min_tokens", "it is larger than max_tokens."));
    }
    Ok(limits)
}

/// The newer name and the older one mean the same; both at once must agree.
fn max_tokens(fields: &mut Fields) -> Result<Option<u32>, Problem> {
    let older = fields.count("max_tokens", 1)?;
    let newer = fields.count("max_completion_tokens", 1)?;
    match (older, newer) {
        (Some(older), Some(newer)) if older != newer => {
            let told = format!("it is {newer}, but max_tokens is {older}; give one of them.");
            Err(Problem::invalid("max_completion_tokens", told))
        }
        _ => Ok(newer.or(older)),
    }
}

fn stop(fields: &mut Fields, most: &settings::Limits) -> Result<Vec<String>, Problem> {
    let texts = match fields.take("stop") {
        None => return Ok(Vec::new()),
        Some(Value::Array(texts)) => texts,
        Some(text @ Value::String(_)) => vec![text],
        Some(other) => return Err(fields::wrong_type("stop", "a string or an array of strings", &other)),
    };
    at_most(most.stop, texts.len(), "stop", "stop texts")?;
    let read = |(index, text): (usize, Value)| match text {
        Value::String(text) if text.is_empty() => {
            Err(Problem::invalid(format!("stop[{index}]"), "a stop text may not be empty."))
        }
        Value::String(text) if text.len() > most.stop_bytes => {
            let told = format!("a stop text may have at most {} bytes.", most.stop_bytes);
            Err(Problem::invalid(format!("stop[{index}]"), told))
        }
        Value::String(text) => Ok(text),
        other => Err(fields::wrong_type(format!("stop[{index}]"), "a string", &other)),
    };
    texts.into_iter().enumerate().map(read).collect()
}

fn stop_token_ids(fields: &mut Fields, most: &settings::Limits) -> Result<Vec<u32>, Problem> {
    let Some(ids) = fields.list("stop_token_ids")? else { return Ok(Vec::new()) };
    at_most(most.token_entries, ids.len(), "stop_token_ids", "token ids")?;
    token_ids(&ids, "stop_token_ids")
}

pub(crate) fn token_ids(ids: &[Value], path: &str) -> Result<Vec<u32>, Problem> {
    let read = |(index, id): (usize, &Value)| {
        let id = fields::integer(id, format!("{path}[{index}]"), &(0..=i64::from(u32::MAX)))?;
        Ok(id as u32)
    };
    ids.iter().enumerate().map(read).collect()
}

fn choices(fields: &mut Fields, most: &settings::Limits) -> Result<u32, Problem> {
    let choices = fields.integer("n", 1..=i64::from(most.choices))?.map_or(1, |n| n as u32);
    let best_of = fields.integer("best_of", 1..=i64::from(u32::MAX))?;
    if best_of.is_some_and(|best_of| best_of != i64::from(choices)) {
        let told = "only as many continuations are made as are returned, so it must equal n.";
        return Err(Problem::unsupported("best_of", told));
    }
    Ok(choices)
}

/// `priority` counts as in other servers: the lower, the sooner, and 0 is normal. It outranks the tier.
pub(crate) fn urgency(fields: &mut Fields) -> Result<Urgency, Problem> {
    let (priority, tier) = match fields.text("service_tier")?.as_deref() {
        None => (Priority::Normal, None),
        Some("auto" | "default") => (Priority::Normal, Some("default")),
        Some("scale") => (Priority::Normal, Some("scale")),
        Some("flex") => (Priority::Low, Some("flex")),
        Some("priority") => (Priority::High, Some("priority")),
        Some("fast") => (Priority::High, Some("fast")),
        Some(_) => {
            let told = "expected one of 'auto', 'default', 'flex', 'scale', 'priority' and 'fast'.";
            return Err(Problem::invalid("service_tier", told));
        }
    };
    let priority = match fields.integer("priority", i64::MIN..=i64::MAX)? {
        None => priority,
        Some(..0) => Priority::High,
        Some(0) => Priority::Normal,
        Some(1..) => Priority::Low,
    };
    Ok(Urgency { priority, tier })
}

fn delivery(fields: &mut Fields) -> Result<Delivery, Problem> {
    let stream = fields.boolean("stream")?.unwrap_or(false);
    let Some(mut options) = fields.object("stream_options")? else {
        return Ok(if stream { Delivery::Stream } else { Delivery::Whole });
    };
    let usage = options.boolean("include_usage")?.unwrap_or(false);
    match (stream, usage) {
        (false, _) => Err(Problem::invalid("stream_options", "it is only allowed when 'stream' is true.")),
        (true, true) => Ok(Delivery::StreamWithUsage),
        (true, false) => Ok(Delivery::Stream),
    }
}

pub(crate) fn at_most(most: usize, found: usize, path: &str, what: &str) -> Result<(), Problem> {
    if found <= most {
        return Ok(());
    }
    Err(Problem::invalid(path, format!("at most {most} {what} are allowed, but got {found}.")))
}

#[cfg(test)]
mod tests;
