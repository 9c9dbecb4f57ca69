//! `tidegate run`: one answer to an argument or a pipe, or a chat at a terminal.

use std::io::{IsTerminal, stderr, stdin, stdout};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use protocol::{
    Chat, Clip, Content, GenerateRequest, Image, Inference, Limits, Message, Part, Prompt, Sampling,
};
use serde_json::{Map, Value};
use tidegate::settings::{InferenceSettings, LogSettings, TimeSpan};
use tokio::runtime::{Builder, Runtime};

use super::answer::{Answer, Ending, Form, Printer, follow};
use super::exit::Misuse;
use super::form::FormArguments;
use super::interrupts::Interrupts;
use super::prompt::{Source, Stdin, source};
use super::sampling::SamplingArguments;
use super::summary::greeting;
use super::{Exit, Talk, loading, logging, pictures, repl};

#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// What to answer; `-` reads standard input, and so does leaving it out when that is not a terminal. Left out at a
    /// terminal, a chat opens.
    prompt: Option<String>,
    /// Picture that the prompt is about: a PNG, JPEG, WebP or GIF file, of a GIF its first frame; may be repeated.
    #[arg(long, value_name = "FILE", conflicts_with = "raw")]
    image: Vec<PathBuf>,
    /// Folder with the frames of a video that the prompt is about: images of one size, shown in the order of their names;
    /// may be repeated.
    #[arg(long, value_name = "FOLDER", conflicts_with = "raw")]
    video_frames: Vec<PathBuf>,
    /// Frames that are shown in a second of the video; left out, as many as the model's files say.
    #[arg(long, value_name = "N", requires = "video_frames", value_parser = rate)]
    video_fps: Option<f64>,
    /// System message that stands before the conversation.
    #[arg(long, value_name = "TEXT", conflicts_with = "raw")]
    system: Option<String>,
    /// Continue the prompt as it stands, without the model's chat template.
    #[arg(long)]
    raw: bool,
    /// Print JSON: one object at the end, or with =lines one object per event as it comes.
    #[arg(long, value_name = "FORM", num_args = 0..=1, require_equals = true, default_missing_value = "object")]
    json: Option<Form>,
    /// Give up after this time.
    #[arg(long, value_name = "TIME")]
    timeout: Option<TimeSpan>,
    #[command(flatten)]
    form: FormArguments,
    #[command(flatten)]
    sampling: SamplingArguments,
    #[command(flatten)]
    inference: InferenceSettings,
    #[command(flatten)]
    log: LogSettings,
}

/// How prompts become requests in this call.
#[derive(Debug, Default)]
pub(super) struct Asking {
    pub(super) system: Option<String>,
    style: Style,
    form: Option<protocol::Form>,
    sampling: Sampling,
    limits: Limits,
    timeout: Option<Duration>,
}

/// What a prompt is to the model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Style {
    /// A turn of a conversation.
    #[default]
    Chat,
    /// Text to be continued.
    Raw,
}

impl Asking {
    fn new(arguments: &Arguments, style: Style) -> anyhow::Result<Self> {
        Ok(Self {
            form: arguments.form.form()?,
            system: arguments.system.clone(),
            style,
            sampling: arguments.sampling.sampling(),
            limits: arguments.sampling.limits(),
            timeout: arguments.timeout.map(|span| span.0),
        })
    }

    pub(super) fn style(&self) -> Style {
        self.style
    }

    pub(super) fn request(&self, prompt: Prompt) -> GenerateRequest {
        let mut request = GenerateRequest::new("run", prompt);
        request.form = self.form.clone();
        request.sampling = self.sampling.clone();
        request.limits = self.limits.clone();
        request.deadline = self.timeout;
        request
    }

    /// A single question, which may be about pictures.
    fn question(&self, text: String, (images, clips): Shown) -> GenerateRequest {
        let prompt = match self.style {
            Style::Raw => Prompt::Text(text),
            Style::Chat => {
                let system = self.system.iter().map(|text| Message::text("system", text.as_str()));
                let messages = system.chain([turn(text, (images.len(), clips.len()))]).collect();
                Prompt::Chat(Chat { messages, ..Chat::default() })
            }
        };
        GenerateRequest { images, clips, ..self.request(prompt) }
    }
}

/// What a prompt is about beside its text.
type Shown = (Vec<Image>, Vec<Clip>);

/// A number of frames a second.
fn rate(text: &str) -> Result<f64, String> {
    let rate: Option<f64> = text.parse().ok().filter(|rate| (0.01..=1000.0).contains(rate));
    rate.ok_or_else(|| format!("'{text}' is no number from 0.01 to 1000, such as 2"))
}

/// What a person says, after so many pictures and clips.
pub(super) fn turn(text: String, (images, clips): (usize, usize)) -> Message {
    let mut message = Message::text("user", text);
    if let (1.., Some(Content::Text(text))) = (images + clips, &message.content) {
        let part = |kind: &str, fields| Part { kind: kind.to_owned(), fields };
        let text = part("text", Map::from_iter([("text".to_owned(), Value::from(text.as_str()))]));
        let images = (0..images).map(|_| part("image", Map::new()));
        let clips = (0..clips).map(|_| part("video", Map::new()));
        message.content = Some(Content::Parts(images.chain(clips).chain([text]).collect()));
    }
    message
}

pub(super) fn run(arguments: Arguments, talk: Talk) -> anyhow::Result<Exit> {
    logging::start(&arguments.log, "warn")?;
    let stdin_is = if stdin().is_terminal() { Stdin::Terminal } else { Stdin::Pipe };
    let source = source(arguments.prompt.as_deref(), stdin_is, stdin().lock())?;
    let clips = pictures::read_clips(&arguments.video_frames, arguments.video_fps)?;
    let shown = (pictures::read(&arguments.image)?, clips);
    let shows = !shown.0.is_empty() || !shown.1.is_empty();
    if source == Source::Chat && shows {
        let advice = "say what to ask about the image: tidegate run --image FILE \"What is this?\"";
        return Err(Misuse(advice.to_owned()).into());
    }
    let runtime = Builder::new_current_thread().enable_all().build().context("cannot start the runtime")?;
    let Some(opened) = loading::wait(&runtime, arguments.inference.clone(), talk)? else {
        return Ok(Exit::Interrupted);
    };
    let has_template = opened.summary.card.chat;
    let style = if arguments.raw || !has_template { Style::Raw } else { Style::Chat };
    if shows && style == Style::Raw {
        let model = &opened.summary.card.id;
        let advice = format!("'{model}' has no chat template, so it takes no images; leave them out");
        return Err(Misuse(advice).into());
    }
    let asking = Asking::new(&arguments, style)?;
    let inference = opened.inference;
    match source {
        Source::Chat => {
            if talk == Talk::Normal {
                eprintln!("{}", greeting(&opened.summary));
            }
            repl::chat(&runtime, &inference, &asking, talk)
        }
        Source::Prompt(text) => {
            let form = arguments.json.unwrap_or(Form::Text);
            let answer = once(&runtime, &inference, asking.question(text, shown), form)?;
            if talk == Talk::Normal && form == Form::Text && stdout().is_terminal() && stderr().is_terminal()
            {
                eprintln!("({})", answer.remark());
            }
            Ok(match answer.ending {
                Ending::Interrupted => Exit::Interrupted,
                Ending::Finished(_) => Exit::Done,
            })
        }
    }
}

/// Answers one request; Ctrl-C ends it, and after it the engine is drained, which a second Ctrl-C cuts short.
fn once(
    runtime: &Runtime,
    inference: &Arc<dyn Inference>,
    request: GenerateRequest,
    form: Form,
) -> anyhow::Result<Answer> {
    runtime.block_on(async {
        let mut interrupts = Interrupts::listen().context("cannot listen for Ctrl-C")?;
        let generation = inference.generate(request).await?;
        let answer = follow(generation, &mut Printer::new(form, stdout()), interrupts.next()).await;
        tokio::select! {
            () = inference.drain() => {}
            () = interrupts.next() => {}
        }
        answer
    })
}
