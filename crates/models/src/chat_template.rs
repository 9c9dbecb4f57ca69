//! Jinja chat templates of Hugging Face folders and GGUF files.
//!
//! Templates are programs from strangers. They run with a bound on instructions and on output, without access to
//! files, and with the names that `transformers` gives them: `messages`, `tools`, `documents`,
//! `add_generation_prompt`, the special tokens, `raise_exception`, `strftime_now`, and `tojson` as Python writes JSON.

mod calendar;
mod python_json;
mod sources;

#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, Error, ErrorKind};
use serde_json::{Map, Value};

use crate::{ModelError, Repository};

use sources::Sources;

/// Instructions that one rendering may take, enough for about ten thousand turns.
const FUEL: u64 = 1_000_000;

/// Stack for one rendering. A template can nest values as deeply as its instructions reach, and they are dropped level
/// by level; this holds them all.
const STACK: usize = 128 << 20;

/// Bytes that one rendering may write.
const OUTPUT_LIMIT: usize = 64 << 20;

/// Name of the template that is used unless the request has tools and there is one for these.
const DEFAULT: &str = "default";
const TOOL_USE: &str = "tool_use";

/// A compiled chat template. Cheap to clone.
#[derive(Clone)]
pub struct ChatTemplate {
    shared: Arc<Shared>,
}

struct Shared {
    /// Whether a template tells the model of tools and how to call them.
    tools: bool,
    environment: Environment<'static>,
    /// Special tokens by the names that templates use: `bos_token`, `eos_token`, ….
    tokens: Map<String, Value>,
}

impl ChatTemplate {
    /// Reads the template of a model folder: `chat_template.jinja`, else `chat_template.json`, else the one in
    /// `tokenizer_config.json`; or that of a GGUF file. `None` where there is none.
    ///
    /// # Errors
    /// When a file is broken or the template does not parse.
    pub fn read(repository: &Repository) -> Result<Option<Self>, ModelError> {
        let Some(sources) = Sources::read(repository)? else { return Ok(None) };
        Self::compile(sources).map(Some)
    }

    /// Compiles a template. `bos` and `eos` are the texts of these tokens, if any.
    ///
    /// # Errors
    /// When the template does not parse.
    pub fn new(source: &str, bos: Option<&str>, eos: Option<&str>) -> Result<Self, ModelError> {
        let tokens = [("bos_token", bos), ("eos_token", eos)];
        let tokens =
            tokens.iter().filter_map(|(name, text)| Some(((*name).to_owned(), Value::from((*text)?))));
        Self::compile(Sources {
            path: PathBuf::from("(chat template)"),
            templates: vec![(DEFAULT.to_owned(), source.to_owned())],
            tokens: tokens.collect(),
        })
    }

    fn compile(sources: Sources) -> Result<Self, ModelError> {
        let Sources { path, templates, tokens } = sources;
        let tools =
            templates.iter().any(|(_, source)| source.contains("tools") && source.contains("<tool_call>"));
        let mut environment = environment().map_err(|error| parse_error(&path, &error))?;
        for (name, source) in templates {
            let added = environment.add_template_owned(name, without_generation_tags(&source));
            added.map_err(|error| parse_error(&path, &error))?;
        }
        Ok(Self { shared: Arc::new(Shared { tools, environment, tokens }) })
    }

    /// Whether the template tells the model of tools, to be called as `<tool_call>{"name": …, "arguments": …}</tool_call>`,
    /// the way of Qwen and Hermes models.
    pub fn knows_tools(&self) -> bool {
        self.shared.tools
    }

    /// Renders a conversation. `messages` is a JSON array; `options` become variables of the template
    /// (`add_generation_prompt` defaults to true).
    ///
    /// # Errors
    /// When the template raises (`raise_exception`) or fails; the message is meant for the client.
    pub fn render(&self, messages: &Value, options: &Map<String, Value>) -> Result<String, ModelError> {
        let failed = |reason: &str| ModelError::Render { reason: reason.to_owned() };
        std::thread::scope(|scope| {
            let render = || self.shared.render(messages, options);
            let thread = std::thread::Builder::new().name("chat template".to_owned()).stack_size(STACK);
            let thread = thread.spawn_scoped(scope, render).map_err(|error| failed(&error.to_string()))?;
            thread.join().unwrap_or_else(|_| Err(failed("it failed in an unforeseen way")))
        })
    }
}

impl Shared {
    fn render(&self, messages: &Value, options: &Map<String, Value>) -> Result<String, ModelError> {
        let has_tools = options.get("tools").is_some_and(|tools| !tools.is_null());
        let special = self.environment.get_template(TOOL_USE).ok().filter(|_| has_tools);
        let failed = |error: Error| ModelError::Render { reason: plain(&error) };
        let template = special.map_or_else(|| self.environment.get_template(DEFAULT), Ok).map_err(failed)?;

        let mut variables = self.tokens.clone();
        variables.insert("messages".to_owned(), messages.clone());
        variables.insert("tools".to_owned(), Value::Null);
        variables.insert("documents".to_owned(), Value::Null);
        variables.insert("add_generation_prompt".to_owned(), Value::Bool(true));
        variables.extend(options.clone());

        let mut output = Bounded::default();
        let context = minijinja::Value::from(Serde(&variables));
        let rendered = template.render_captured_to(context, &mut output);
        if output.overflowed {
            let reason = format!("it wrote more than {OUTPUT_LIMIT} bytes");
            return Err(ModelError::Render { reason });
        }
        rendered.map_err(failed)?;
        Ok(String::from_utf8_lossy(&output.bytes).into_owned())
    }
}

fn environment() -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_fuel(Some(FUEL));
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_filter("tojson", python_json::filter);
    environment.add_function("raise_exception", |reason: String| -> Result<String, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, reason))
    });
    environment.add_function("strftime_now", |format: &str| calendar::strftime(format, calendar::now()));
    Ok(environment)
}

/// The template without `{% generation %}` and `{% endgeneration %}`, which mark what a trainer computes losses on
/// and change no text. The trimming of white space that the tags ask for stays, on a comment in their place.
fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let Some(length) = rest[start..].find("%}") else { break };
        let (before, tag) = (&rest[..start], &rest[start..start + length + 2]);
        let body = tag[2..tag.len() - 2].trim_matches(['-', '+', ' ', '\t', '\n', '\r']);
        out.push_str(before);
        if body == "generation" || body == "endgeneration" {
            out.push_str(&tag.replace(body, "set _ = none"));
        } else {
            out.push_str(tag);
        }
        rest = &rest[start + tag.len()..];
    }
    out.push_str(rest);
    out
}

fn parse_error(path: &Path, error: &Error) -> ModelError {
    ModelError::Template { path: path.to_owned(), reason: error.to_string() }
}

/// What a template raised, or why it failed, without the name of the template.
fn plain(error: &Error) -> String {
    match (error.kind(), error.detail()) {
        (ErrorKind::OutOfFuel, _) => format!("it did not end within {FUEL} steps"),
        (ErrorKind::InvalidOperation, Some(detail)) => detail.to_owned(),
        (kind, Some(detail)) => format!("{kind}: {detail}"),
        (kind, None) => kind.to_string(),
    }
}

/// Collects output up to [`OUTPUT_LIMIT`] and then refuses more.
#[derive(Default)]
struct Bounded {
    bytes: Vec<u8>,
    overflowed: bool,
}

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > OUTPUT_LIMIT {
            self.overflowed = true;
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
