//! The form of an answer, as arguments of one call.

use std::fs;
use std::path::Path;

use anyhow::{Context, bail};
use clap::Args;
use protocol::Form;

/// Without any of them, the answer is free. With one, it is of that form, or cut off at the limit of tokens.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Form of the answer")]
#[group(multiple = false)]
pub(super) struct FormArguments {
    /// JSON that this JSON schema accepts: the path of a file, or the schema itself.
    #[arg(long, value_name = "SCHEMA")]
    schema: Option<String>,
    /// Text that this regular expression matches as a whole.
    #[arg(long, value_name = "PATTERN")]
    regex: Option<String>,
    /// One of the texts given so; to be repeated.
    #[arg(long, value_name = "TEXT")]
    choice: Vec<String>,
    /// Text of a grammar in llguidance's variant of Lark, read from this file.
    #[arg(long, value_name = "FILE")]
    grammar: Option<String>,
}

impl FormArguments {
    /// The form that was asked for.
    ///
    /// # Errors
    /// When a file cannot be read, or is no JSON where it should be.
    pub(super) fn form(&self) -> anyhow::Result<Option<Form>> {
        Ok(match (&self.schema, &self.regex, &self.grammar) {
            (Some(schema), ..) => Some(Form::JsonSchema(self::schema(schema)?)),
            (_, Some(pattern), _) => Some(Form::Regex(pattern.clone())),
            (.., Some(file)) => Some(Form::Grammar(read(file, "grammar")?)),
            _ if !self.choice.is_empty() => Some(Form::Choice(self.choice.clone())),
            _ => None,
        })
    }
}

fn schema(given: &str) -> anyhow::Result<serde_json::Value> {
    if given.trim_start().starts_with('{') {
        return serde_json::from_str(given)
            .context("--schema is not JSON; give a JSON schema or the path of one");
    }
    let text = read(given, "schema")?;
    serde_json::from_str(&text).with_context(|| format!("{given} is not JSON; --schema wants a JSON schema"))
}

fn read(file: &str, what: &str) -> anyhow::Result<String> {
    if !Path::new(file).is_file() {
        bail!("there is no file '{file}'; --{what} wants the path of one");
    }
    fs::read_to_string(file).with_context(|| format!("cannot read {file}"))
}
