//! A request with every value checked and every default resolved.

use std::sync::Arc;
use std::time::Duration;

use models::Pooling;
use models::generation::GenerationDefaults;
use protocol::{GenerateRequest, Limits, Priority, Refusal, Sampling};

use crate::form::Template;
use crate::prefix::Scope;
use crate::reasoning::Reasoning;
use crate::sampler::Settings;
use crate::vision::View;

/// The most continuations of one request.
pub const MAX_CHOICES: u32 = 128;
/// The most alternatives reported per token.
pub const MAX_LOGPROBS: u32 = 20;
/// The most stop texts, and the most stop tokens, of one request.
pub const MAX_STOPS: usize = 64;
/// The most bytes of one stop text.
pub const MAX_STOP_BYTES: usize = 1024;
/// The most bytes of a cache salt.
pub const MAX_CACHE_SALT_BYTES: usize = 256;
/// The highest temperature. Clients stay below 2; more flattens the distribution to noise, but does no harm.
pub const MAX_TEMPERATURE: f32 = 100.0;

/// What requests are checked against.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Ids are below it.
    pub(crate) vocabulary: usize,
    /// Prompt and output together hold at most this many tokens.
    pub(crate) context: usize,
}

/// What the engine needs to know to serve a request; shared by its continuations.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Parameters {
    /// Token ids, at least one.
    pub(crate) prompt: Vec<u32>,
    /// How to choose.
    pub(crate) settings: Settings,
    /// Drawn afresh if the request had none.
    pub(crate) seed: u64,
    /// Continuations.
    pub(crate) choices: u32,
    /// Sampled tokens per continuation at most; prompt and these fit the context.
    pub(crate) max_tokens: usize,
    /// No end before so many.
    pub(crate) min_tokens: usize,
    /// Tokens that end a continuation.
    pub(crate) ends: Vec<u32>,
    /// Tokens that are not sampled before `min_tokens`: the ends, and the model's own even where they are ignored.
    pub(crate) held_off: Vec<u32>,
    /// Texts that end a continuation.
    pub(crate) stops: Vec<String>,
    /// What the answer of every continuation is kept to.
    pub(crate) form: Option<Template>,
    /// Where every continuation begins.
    pub(crate) reasoning: Reasoning,
    /// Alternatives to report per token.
    pub(crate) logprobs: Option<u32>,
    /// Urgency.
    pub(crate) priority: Priority,
    /// Time from acceptance after which it fails.
    pub(crate) deadline: Option<Duration>,
    /// With whom it shares keys and values.
    pub(crate) scope: Arc<Scope>,
    /// Where its pictures stand in the prompt, if it has any.
    pub(crate) view: Option<View>,
    /// What becomes of the hidden states of its prompt, where a vector is wanted and no text.
    pub(crate) pooling: Option<Pooling>,
}

impl Parameters {
    /// Whether keys and values of its prompt may come from other requests.
    pub(crate) fn shares_prefix(&self) -> bool {
        matches!(*self.scope, Scope::Tenant { .. }) && self.may_skip()
    }

    /// Whether tokens need not be computed whose keys and values are there: they are all that a text needs of what stands
    /// before it, but a vector may be made of the hidden states of all tokens.
    pub(crate) fn may_skip(&self) -> bool {
        self.pooling.is_none_or(Pooling::needs_only_the_last)
    }

    /// What the tokens of its prompt are for the prefix cache, as far as they need not be computed if it holds them.
    pub(crate) fn keys(&self) -> &[u32] {
        match &self.view {
            _ if !self.may_skip() => &[],
            None => &self.prompt,
            Some(view) => &view.keys[..view.keys.len().min(view.shareable)],
        }
    }
}

fn invalid(param: &str, message: String) -> Refusal {
    Refusal::InvalidParameter { param: param.to_owned(), message }
}

/// Refuses values that cannot be honoured, before any work is spent on the prompt.
pub(crate) fn check(request: &GenerateRequest, bounds: Bounds) -> Result<(), Refusal> {
    check_sampling(&request.sampling, bounds)?;
    check_limits(&request.limits, bounds)?;
    if !(1..=MAX_CHOICES).contains(&request.choices) {
        return Err(invalid("n", format!("n must be between 1 and {MAX_CHOICES}, got {}", request.choices)));
    }
    if let Some(salt) = &request.cache_salt
        && !(1..=MAX_CACHE_SALT_BYTES).contains(&salt.len())
    {
        let (most, found) = (MAX_CACHE_SALT_BYTES, salt.len());
        return Err(invalid(
            "cache_salt",
            format!("a cache salt must have between 1 and {most} bytes, got {found}"),
        ));
    }
    if request.form.is_some() && request.limits.min_tokens > 0 {
        let told = "min_tokens cannot be combined with a form of the output: the form says when it may end";
        return Err(invalid("min_tokens", told.to_owned()));
    }
    match request.logprobs {
        Some(k) if k > MAX_LOGPROBS => {
            Err(invalid("top_logprobs", format!("top_logprobs must be at most {MAX_LOGPROBS}, got {k}")))
        }
        _ => Ok(()),
    }
}

fn check_sampling(sampling: &Sampling, bounds: Bounds) -> Result<(), Refusal> {
    let penalty = |x: f32| (-2.0..=2.0).contains(&x);
    let ranges: [(&str, Option<f32>, bool, &str); 6] = {
        let s = sampling;
        let ok = |value: Option<f32>, valid: fn(f32) -> bool| value.is_none_or(valid);
        [
            (
                "temperature",
                s.temperature,
                ok(s.temperature, |t| (0.0..=MAX_TEMPERATURE).contains(&t)),
                "between 0 and 100",
            ),
            ("top_p", s.top_p, ok(s.top_p, |p| p > 0.0 && p <= 1.0), "above 0 and at most 1"),
            ("min_p", s.min_p, ok(s.min_p, |p| (0.0..=1.0).contains(&p)), "between 0 and 1"),
            (
                "repetition_penalty",
                s.repetition_penalty,
                ok(s.repetition_penalty, |r| r > 0.0 && r.is_finite()),
                "above 0",
            ),
            (
                "frequency_penalty",
                Some(s.frequency_penalty),
                penalty(s.frequency_penalty),
                "between -2 and 2",
            ),
            ("presence_penalty", Some(s.presence_penalty), penalty(s.presence_penalty), "between -2 and 2"),
        ]
    };
    for (param, value, valid, range) in ranges {
        if let (Some(value), false) = (value, valid) {
            return Err(invalid(param, format!("{param} must be {range}, got {value}")));
        }
    }
    for &(id, bias) in &sampling.logit_bias {
        if id as usize >= bounds.vocabulary {
            return Err(outside("logit_bias", id, bounds));
        }
        if !(-100.0..=100.0).contains(&bias) {
            return Err(invalid(
                "logit_bias",
                format!("a logit bias must be between -100 and 100, got {bias} for token {id}"),
            ));
        }
    }
    Ok(())
}

fn outside(param: &str, id: u32, bounds: Bounds) -> Refusal {
    invalid(param, format!("token {id} is outside the vocabulary; ids are below {}", bounds.vocabulary))
}

fn check_limits(limits: &Limits, bounds: Bounds) -> Result<(), Refusal> {
    if limits.max_tokens == Some(0) {
        return Err(invalid("max_tokens", "max_tokens must be at least 1, got 0".to_owned()));
    }
    if let Some(max) = limits.max_tokens
        && limits.min_tokens > max
    {
        return Err(invalid(
            "min_tokens",
            format!("min_tokens must be at most max_tokens ({max}), got {}", limits.min_tokens),
        ));
    }
    let (texts, ids) = (limits.stop.len(), limits.stop_token_ids.len());
    if texts > MAX_STOPS {
        return Err(invalid("stop", format!("at most {MAX_STOPS} stop texts are allowed, got {texts}")));
    }
    if ids > MAX_STOPS {
        return Err(invalid(
            "stop_token_ids",
            format!("at most {MAX_STOPS} stop tokens are allowed, got {ids}"),
        ));
    }
    if let Some(stop) = limits.stop.iter().find(|stop| stop.is_empty() || stop.len() > MAX_STOP_BYTES) {
        let bytes = stop.len();
        return Err(invalid(
            "stop",
            format!("a stop text must have between 1 and {MAX_STOP_BYTES} bytes, got {bytes}"),
        ));
    }
    match limits.stop_token_ids.iter().find(|&&id| id as usize >= bounds.vocabulary) {
        Some(&id) => Err(outside("stop_token_ids", id, bounds)),
        None => Ok(()),
    }
}

/// What was made of the parts of a request that take time to read.
pub(crate) struct Prepared {
    pub(crate) prompt: Vec<u32>,
    pub(crate) reasoning: Reasoning,
    pub(crate) form: Option<Template>,
    pub(crate) pooling: Option<Pooling>,
}

/// Joins a checked request with what was prepared for it and the model's defaults.
pub(crate) fn resolve(
    request: GenerateRequest,
    Prepared { prompt, reasoning, form, pooling }: Prepared,
    defaults: &GenerationDefaults,
    bounds: Bounds,
) -> Result<Parameters, Refusal> {
    if let Some(&id) = prompt.iter().find(|&&id| id as usize >= bounds.vocabulary) {
        return Err(outside("prompt", id, bounds));
    }
    let GenerateRequest {
        sampling, limits, choices, logprobs, priority, deadline, tenant, cache_salt, ..
    } = request;
    let scope = Scope::Tenant { name: tenant.0.into(), salt: cache_salt };
    let max_tokens = match pooling {
        Some(_) => whole(prompt.len(), bounds)?,
        None => max_tokens(&limits, prompt.len(), bounds)?,
    };
    let own_ends = &defaults.eos_token_ids;
    let mut ends = limits.stop_token_ids;
    let mut held_off = ends.clone();
    held_off.extend(own_ends);
    if !limits.ignore_eos {
        ends.extend(own_ends);
    }
    Ok(Parameters {
        prompt,
        seed: sampling.seed.unwrap_or_else(fresh_seed),
        settings: settings(sampling, defaults),
        choices,
        max_tokens,
        min_tokens: limits.min_tokens as usize,
        ends,
        held_off,
        stops: limits.stop,
        form,
        reasoning,
        logprobs,
        priority,
        deadline,
        scope: Arc::new(scope),
        view: None,
        pooling,
    })
}

/// What may be written behind a prompt that is read for its hidden states.
fn whole(prompt: usize, bounds: Bounds) -> Result<usize, Refusal> {
    if prompt <= bounds.context {
        return Ok(0);
    }
    let count = |tokens: usize| u32::try_from(tokens).unwrap_or(u32::MAX);
    Err(Refusal::ContextLength {
        prompt_tokens: count(prompt),
        max_tokens: None,
        context: count(bounds.context),
    })
}

fn max_tokens(limits: &Limits, prompt: usize, bounds: Bounds) -> Result<usize, Refusal> {
    let left = bounds.context.saturating_sub(prompt);
    let least = limits.max_tokens.unwrap_or(limits.min_tokens.max(1)) as usize;
    if least > left {
        return Err(Refusal::ContextLength {
            prompt_tokens: u32::try_from(prompt).unwrap_or(u32::MAX),
            max_tokens: limits.max_tokens,
            context: u32::try_from(bounds.context).unwrap_or(u32::MAX),
        });
    }
    Ok(limits.max_tokens.map_or(left, |max| max as usize))
}

fn settings(sampling: Sampling, defaults: &GenerationDefaults) -> Settings {
    let neutral = Settings::default();
    let first = |asked: Option<f32>, usual: Option<f32>, neutral: f32| asked.or(usual).unwrap_or(neutral);
    Settings {
        repetition_penalty: first(
            sampling.repetition_penalty,
            defaults.repetition_penalty,
            neutral.repetition_penalty,
        ),
        frequency_penalty: sampling.frequency_penalty,
        presence_penalty: sampling.presence_penalty,
        logit_bias: sampling.logit_bias,
        temperature: first(sampling.temperature, defaults.temperature, neutral.temperature),
        top_k: sampling.top_k.or(defaults.top_k).unwrap_or(neutral.top_k),
        top_p: first(sampling.top_p, defaults.top_p, neutral.top_p),
        min_p: first(sampling.min_p, defaults.min_p, neutral.min_p),
    }
}

/// A seed from the entropy that the standard library draws for its hash maps.
fn fresh_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish()
}
