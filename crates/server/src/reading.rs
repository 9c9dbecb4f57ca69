//! What requests for vectors and for scores have in common: who asks and how urgently, texts of any spelling, usage.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use protocol::{Overlong, Timing, Unserved};
use serde::Serialize;
use serde_json::Value;

use crate::app::App;
use crate::failure::Problem;
use crate::fields::{self, Fields};
use crate::observe::Call;
use crate::parameters::{Urgency, at_most, urgency};
use crate::reply::leaving;
use crate::settings::Limits;
use crate::spans::Run;

/// The fields that say nothing about the texts.
pub(crate) struct Asked {
    pub(crate) model: Option<String>,
    pub(crate) urgency: Urgency,
    pub(crate) deadline: Option<Duration>,
    pub(crate) overlong: Overlong,
}

impl Asked {
    pub(crate) fn read(fields: &mut Fields) -> Result<Self, Problem> {
        let overlong = match fields.boolean("truncate")? {
            Some(false) => Overlong::Refuse,
            None | Some(true) => Overlong::Cut,
        };
        Ok(Self {
            model: fields.text("model")?,
            urgency: urgency(fields)?,
            deadline: fields.number("timeout", 0.001..=1e6)?.map(Duration::from_secs_f32),
            overlong,
        })
    }
}

/// Tokens read; nothing is written.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct TokensRead {
    prompt_tokens: u32,
    total_tokens: u32,
}

impl TokensRead {
    pub(crate) fn new(tokens: u32) -> Self {
        Self { prompt_tokens: tokens, total_tokens: tokens }
    }
}

/// Waits for an answer, unless the server leaves before. `param` is what a client calls the texts.
pub(crate) async fn answer<T>(
    app: &Arc<App>,
    work: impl Future<Output = Result<T, Unserved>>,
    param: &'static str,
) -> Result<T, Problem> {
    let mut stage = app.stage.subscribe();
    let answered = tokio::select! {
        biased;
        answered = work => answered,
        () = leaving(&mut stage) => return Err(Problem::Draining),
    };
    answered.map_err(|unserved| match unserved {
        Unserved::Refused(refusal) => {
            Problem::Refused { refusal, prompt: param, overload: app.settings.overload }
        }
        Unserved::Failed(failure) => Problem::Failed(failure),
    })
}

/// Tells the access log what an answer took.
pub(crate) fn note(call: &Call, model: &str, (tokens, timing): (u32, Timing)) {
    call.note(|facts| {
        facts.model = Some(model.to_owned());
        facts.prompt_tokens = tokens;
        facts.queued = Some(timing.queued);
        facts.runs.push(Run::encoded(timing));
    });
}

/// A text or a list of texts; a document may also be an object with the field `text`.
pub(crate) fn texts(value: Value, path: &str, most: &Limits) -> Result<Vec<String>, Problem> {
    let items = match value {
        Value::String(text) => return Ok(vec![text]),
        Value::Array(items) => items,
        other => return Err(fields::wrong_type(path, "a string or an array of strings", &other)),
    };
    if items.is_empty() {
        return Err(Problem::invalid(path, "at least one text is needed."));
    }
    at_most(most.inputs, items.len(), path, "texts")?;
    items.into_iter().enumerate().map(|(index, item)| text(item, &format!("{path}[{index}]"))).collect()
}

fn text(item: Value, path: &str) -> Result<String, Problem> {
    match item {
        Value::String(text) => Ok(text),
        Value::Object(_) => {
            let mut fields = Fields::of(item, path)?;
            let text = fields.text("text")?;
            text.ok_or_else(|| fields.missing("text"))
        }
        other => Err(fields::wrong_type(path, "a string", &other)),
    }
}
