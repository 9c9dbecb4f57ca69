//! `tidegate embed`: texts in, vectors out, a line each.

use std::io::{BufRead, Write, stdin, stdout};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use clap::{Args, ValueEnum, ValueHint};
use protocol::{
    Chat, EmbedInput, EmbedRequest, Embeddings, Image, Inference, Overlong, Purpose, Shown, Unserved,
};
use serde_json::Value;
use tidegate::Source;
use tidegate::settings::{InferenceSettings, LogSettings};
use tokio::runtime::Builder;

use super::interrupts::Interrupts;
use super::run::turn;
use super::summary::greeting;
use super::{Exit, Talk, loading, logging, pictures};

/// Lines that are embedded together. More would only wait longer for each other.
const LINES: usize = 256;

#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// Text to embed; `-` reads standard input, a text a line, and so does leaving it out.
    text: Option<String>,
    /// Form of the output: numbers (a line of them for each text) or json (an object a line).
    #[arg(long, value_name = "FORM", default_value = "numbers")]
    form: Form,
    /// Keep that many leading numbers of each vector and scale them to unit length.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    dimensions: Option<u32>,
    /// Put the model's prompt of this name before each text: query, document.
    #[arg(long, value_name = "NAME")]
    prompt_name: Option<String>,
    /// Fail where a text is longer than the model reads, instead of cutting its end off.
    #[arg(long)]
    no_truncate: bool,
    /// Image to embed, alone or with the text behind it; may be repeated: all of it becomes one vector. For models that see.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with_all = ["prompt_name", "no_truncate"])]
    image: Vec<PathBuf>,
    #[command(flatten)]
    inference: InferenceSettings,
    #[command(flatten)]
    log: LogSettings,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    Numbers,
    Json,
}

pub(super) fn run(arguments: Arguments, talk: Talk) -> anyhow::Result<Exit> {
    logging::start(&arguments.log, "warn")?;
    let images = pictures::read(&arguments.image)?;
    let runtime = Builder::new_current_thread().enable_all().build().context("cannot start the runtime")?;
    let Some(opened) = loading::wait(&runtime, arguments.inference.clone(), talk)? else {
        return Ok(Exit::Interrupted);
    };
    if talk == Talk::Normal {
        eprintln!("{}", greeting(&opened.summary));
        if opened.summary.source == Source::Embedded {
            eprintln!(
                "note: the embedded model was not made to embed; its vectors show the wiring and not what texts mean"
            );
        }
    }
    runtime.block_on(async {
        let mut interrupts = Interrupts::listen().context("cannot listen for Ctrl-C")?;
        tokio::select! {
            done = all((&arguments, images), &opened.inference, talk) => done.map(|()| Exit::Done),
            () = interrupts.next() => Ok(Exit::Interrupted),
        }
    })
}

/// Embeds every text, as many at a time as are worth it.
async fn all(
    (arguments, images): (&Arguments, Vec<Image>),
    inference: &Arc<dyn Inference>,
    talk: Talk,
) -> anyhow::Result<()> {
    match arguments.text.as_deref() {
        text if !images.is_empty() => {
            let text = text.unwrap_or_default().to_owned();
            let messages = vec![turn(text.clone(), (images.len(), 0))];
            let shown = Shown { chat: Chat { messages, ..Chat::default() }, images, clips: Vec::new() };
            some(arguments, inference, vec![(text, EmbedInput::Chat(Box::new(shown)))], talk).await
        }
        Some(text) if text != "-" => some(arguments, inference, vec![plain(text.to_owned())], talk).await,
        _ => {
            let mut lines = stdin().lock().lines();
            loop {
                let next: Vec<_> = lines
                    .by_ref()
                    .take(LINES)
                    .map(|line| line.map(plain))
                    .collect::<Result<_, _>>()
                    .context("cannot read standard input")?;
                if next.is_empty() {
                    return Ok(());
                }
                some(arguments, inference, next, talk).await?;
            }
        }
    }
}

/// A text with itself as its name.
fn plain(text: String) -> (String, EmbedInput) {
    (text.clone(), EmbedInput::Text(text))
}

async fn some(
    arguments: &Arguments,
    inference: &Arc<dyn Inference>,
    inputs: Vec<(String, EmbedInput)>,
    talk: Talk,
) -> anyhow::Result<()> {
    let (texts, inputs): (Vec<String>, Vec<EmbedInput>) = inputs.into_iter().unzip();
    let request = EmbedRequest {
        inputs,
        dimensions: arguments.dimensions,
        purpose: arguments.prompt_name.clone().map_or(Purpose::Unsaid, Purpose::Named),
        overlong: if arguments.no_truncate { Overlong::Refuse } else { Overlong::Cut },
        ..EmbedRequest::new("embed", [""; 0])
    };
    let embeddings = inference.embed(request).await.map_err(|unserved| match unserved {
        Unserved::Refused(refusal) => anyhow::Error::from(refusal),
        Unserved::Failed(failure) => anyhow::Error::from(failure),
    })?;
    let cut = embeddings.vectors.iter().filter(|vector| vector.is_truncated).count();
    if cut > 0 && talk == Talk::Normal {
        eprintln!("note: {cut} texts are longer than the model reads and were cut");
    }
    print(&embeddings, &texts, arguments.form)
}

fn print(embeddings: &Embeddings, texts: &[String], form: Form) -> anyhow::Result<()> {
    let mut out = stdout().lock();
    for (vector, text) in embeddings.vectors.iter().zip(texts) {
        let numbers: Vec<String> = vector.values.iter().map(f32::to_string).collect();
        match form {
            Form::Numbers => writeln!(out, "{}", numbers.join(" "))?,
            Form::Json => {
                // Written by hand, because a JSON value holds 64-bit numbers, which show these with false digits.
                writeln!(
                    out,
                    r#"{{"text":{},"embedding":[{}],"tokens":{},"truncated":{}}}"#,
                    Value::from(text.as_str()),
                    numbers.join(","),
                    vector.tokens,
                    vector.is_truncated
                )?;
            }
        }
    }
    Ok(out.flush()?)
}
