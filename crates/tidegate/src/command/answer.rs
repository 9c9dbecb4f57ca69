//! Follows one request to its end and writes what it hears.

use std::io::{self, Write};
use std::time::Duration;

use clap::ValueEnum;
use futures::StreamExt;
use protocol::{Delta, Event, FinishReason, Generation, Timing, Usage};
use serde_json::{Value, json};

/// How an answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Form {
    /// The text alone, as it comes.
    #[value(skip)]
    Text,
    /// One JSON object at the end.
    Object,
    /// One JSON object per event, as it comes.
    Lines,
}

/// How an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// By itself.
    Finished(FinishReason),
    /// Someone pressed Ctrl-C.
    Interrupted,
}

impl Ending {
    fn name(self) -> &'static str {
        match self {
            Self::Finished(FinishReason::Stop) => "stop",
            Self::Finished(FinishReason::Length) => "length",
            Self::Interrupted => "interrupted",
        }
    }
}

/// An answer that has ended.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Answer {
    model: String,
    pub(super) text: String,
    pub(super) ending: Ending,
    usage: Usage,
    timing: Option<Timing>,
}

impl Answer {
    /// Output tokens per second after the first one, if there were two.
    pub(super) fn tokens_per_second(&self) -> Option<f64> {
        let timing = self.timing?;
        let after = timing.total.saturating_sub(timing.first_token).as_secs_f64();
        let more = self.usage.completion_tokens.checked_sub(1).filter(|more| *more > 0)?;
        (after > 0.0).then(|| f64::from(more) / after)
    }

    /// One line for people: how much and how fast.
    pub(super) fn remark(&self) -> String {
        let tokens = self.usage.completion_tokens;
        let mut line = format!("{tokens} token{}", if tokens == 1 { "" } else { "s" });
        if let Some(rate) = self.tokens_per_second() {
            line += &format!(", {rate:.1} a second");
        }
        if let Some(timing) = self.timing {
            line += &format!(", first after {:.0} ms", millis(timing.first_token));
        }
        match self.ending {
            Ending::Interrupted => line + ", interrupted",
            Ending::Finished(FinishReason::Length) => line + ", cut at the limit",
            Ending::Finished(FinishReason::Stop) => line,
        }
    }

    fn to_json(&self) -> Value {
        let usage = self.usage;
        let mut object = json!({
            "model": self.model,
            "text": self.text,
            "finish_reason": self.ending.name(),
            "usage": {
                "prompt_tokens": usage.prompt_tokens,
                "cached_tokens": usage.cached_tokens,
                "completion_tokens": usage.completion_tokens,
            },
        });
        if let Some(timing) = self.timing {
            object["timing"] = json!({
                "queued_ms": round(millis(timing.queued)),
                "first_token_ms": round(millis(timing.first_token)),
                "total_ms": round(millis(timing.total)),
                "tokens_per_second": self.tokens_per_second().map(round),
            });
        }
        object
    }
}

/// Writes an answer while it comes.
pub(super) struct Printer<W> {
    form: Form,
    out: W,
}

impl<W: Write> Printer<W> {
    pub(super) fn new(form: Form, out: W) -> Self {
        Self { form, out }
    }

    /// Writes one piece. It is flushed at once: whoever reads along shall see it now.
    fn delta(&mut self, delta: &Delta) -> io::Result<()> {
        match self.form {
            Form::Object => Ok(()),
            Form::Text => self.out.write_all(delta.text.as_bytes()).and_then(|()| self.out.flush()),
            Form::Lines => {
                self.line(&json!({ "event": "delta", "text": delta.text, "tokens": delta.tokens }))
            }
        }
    }

    fn started(&mut self, generation: &Generation) -> io::Result<()> {
        match self.form {
            Form::Object | Form::Text => Ok(()),
            Form::Lines => self.line(&json!({
                "event": "accepted",
                "id": generation.id.0,
                "model": generation.model,
                "prompt_tokens": generation.prompt_tokens,
            })),
        }
    }

    fn ended(&mut self, answer: &Answer) -> io::Result<()> {
        match self.form {
            Form::Text if answer.text.ends_with('\n') => Ok(()),
            Form::Text => self.out.write_all(b"\n").and_then(|()| self.out.flush()),
            Form::Object => self.line(&answer.to_json()),
            Form::Lines => {
                let mut line = json!({ "event": "done" });
                if let (Value::Object(line), Value::Object(answer)) = (&mut line, answer.to_json()) {
                    line.extend(answer);
                }
                self.line(&line)
            }
        }
    }

    fn line(&mut self, value: &Value) -> io::Result<()> {
        writeln!(self.out, "{value}")?;
        self.out.flush()
    }
}

/// Reads a generation to its end, or until `stop` resolves, which cancels it.
///
/// # Errors
/// When the request failed, or when what it says cannot be written.
pub(super) async fn follow<W: Write>(
    mut generation: Generation,
    printer: &mut Printer<W>,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<Answer> {
    let mut answer = Answer {
        model: generation.model.clone(),
        text: String::new(),
        ending: Ending::Interrupted,
        usage: Usage { prompt_tokens: generation.prompt_tokens, ..Usage::default() },
        timing: None,
    };
    printer.started(&generation)?;
    tokio::pin!(stop);
    loop {
        let event = tokio::select! {
            biased;
            () = &mut stop => break,
            event = generation.next() => event,
        };
        match event {
            Some(Event::Queued { .. } | Event::Started) => {}
            Some(Event::Delta(delta)) => {
                answer.usage.completion_tokens += delta.tokens.len() as u32;
                answer.text += &delta.text;
                printer.delta(&delta)?;
            }
            Some(Event::Finished { reason, .. }) => answer.ending = Ending::Finished(reason),
            Some(Event::Done { usage, timing }) => {
                answer.usage = usage;
                answer.timing = Some(timing);
                break;
            }
            Some(Event::Failed(failure)) => return Err(failure.into()),
            None => anyhow::bail!("the engine broke off without saying why"),
        }
    }
    printer.ended(&answer)?;
    Ok(answer)
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn round(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests;
