//! Why a request was not accepted.

use std::time::Duration;

use crate::Task;

/// Why a request was not accepted. Nothing was queued and nothing will be sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The queue is full; trying again after `retry_after` is likely to succeed.
    #[error("the queue is full ({queued} requests wait); try again in {} s", seconds(*retry_after))]
    QueueFull {
        /// Requests that wait now.
        queued: usize,
        /// Backlog divided by the measured drain rate.
        retry_after: Duration,
    },
    /// As many requests as may came lately.
    #[error("rate limit reached; try again in {} s", seconds(*retry_after))]
    RateLimited {
        /// When the next request fits.
        retry_after: Duration,
    },
    /// No such model.
    #[error("the model '{model}' does not exist{}", near_names(.near))]
    UnknownModel {
        /// The name asked for.
        model: String,
        /// Names that exist and look similar, or all if there are few.
        near: Vec<String>,
    },
    /// Prompt and requested output do not fit the model's context.
    #[error(
        "the prompt has {prompt_tokens} tokens{}, but the model's context holds {context} tokens; shorten the prompt or lower max_tokens",
        asked(*.max_tokens)
    )]
    ContextLength {
        /// Tokens of the prompt.
        prompt_tokens: u32,
        /// Output tokens asked for, if they were.
        max_tokens: Option<u32>,
        /// Positions that the model has, or that the memory plan allows.
        context: u32,
    },
    /// The model is there but is not made for this.
    #[error("the model '{model}' does not {task}{}", able_names(able))]
    Unable {
        /// The model.
        model: String,
        /// What it was asked to do.
        task: Task,
        /// Models that can.
        able: Vec<String>,
    },
    /// A parameter has a value that cannot be honoured.
    #[error("{message}")]
    InvalidParameter {
        /// The parameter, as a client would name it.
        param: String,
        /// What is wrong and what would be right.
        message: String,
    },
    /// The form that the output should have cannot be used.
    #[error("the {kind} cannot be used: {message}")]
    InvalidForm {
        /// Which kind of form.
        kind: &'static str,
        /// What is wrong with it.
        message: String,
    },
    /// Making a form ready took too long.
    #[error("the {kind} was not ready after {} s; make it simpler", seconds(*waited))]
    FormTimeout {
        /// Which kind of form.
        kind: &'static str,
        /// How long it was waited for.
        waited: Duration,
    },
    /// Loading, draining or restarting.
    #[error("the engine is not ready: {reason}")]
    NotReady {
        /// What it is doing instead.
        reason: String,
    },
}

/// Whole seconds, rounded up, so that nobody is told to come back too early.
fn seconds(wait: Duration) -> u64 {
    (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1)
}

fn asked(max_tokens: Option<u32>) -> String {
    max_tokens.map_or_else(String::new, |n| format!(" and {n} more were requested"))
}

fn near_names(near: &[String]) -> String {
    if near.is_empty() { String::new() } else { format!("; did you mean {}?", near.join(" or ")) }
}

fn able_names(able: &[String]) -> String {
    if able.is_empty() { "; no model here does".to_owned() } else { format!("; ask {}", able.join(" or ")) }
}
