//! `tidegate config show`: every setting with the value that counts.

use std::fmt::Write as _;
use std::io::{Write as _, stdout};

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};
use tidegate::settings::{Layers, Origin, Setting, Settings};

use super::Exit;

#[derive(Args, Debug)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Print every setting with the value that counts, as a configuration file.
    Show(Box<Show>),
}

#[derive(Args, Debug)]
struct Show {
    /// Say where every value came from: flag, variable, file or default.
    #[arg(long)]
    origin: bool,
    #[command(flatten)]
    form: Form,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Args, Debug)]
struct Form {
    /// Print one JSON object, with origins.
    #[arg(long)]
    json: bool,
}

/// Whether origins are shown.
#[derive(Clone, Copy)]
enum Origins {
    Shown,
    Hidden,
}

pub(super) fn run(arguments: &Arguments, layers: &Layers) -> anyhow::Result<Exit> {
    let Action::Show(show) = &arguments.action;
    let settings = layers.settings();
    let text = if show.form.json {
        format!("{:#}\n", as_json(&settings))
    } else {
        as_toml(&settings, if show.origin { Origins::Shown } else { Origins::Hidden })
    };
    stdout().write_all(text.as_bytes())?;
    Ok(Exit::Done)
}

/// A configuration file that sets what is set now; unset and secret settings are comments.
fn as_toml(settings: &[Setting], origins: Origins) -> String {
    let mut text = String::new();
    let mut section = "";
    for setting in settings {
        let key = setting.key;
        if key.section != section {
            let gap = if section.is_empty() { "" } else { "\n" };
            section = key.section;
            writeln!(text, "{gap}[{section}]").ok();
        }
        let line = match setting.values.as_slice() {
            [] => format!("# {} is not set: {}", key.name, key.unset),
            values if key.is_secret() => {
                format!("# {} is set to {} that cannot be shown", key.name, count(values))
            }
            values if key.repeats() => {
                let list: Vec<String> = values.iter().map(|value| literal(value)).collect();
                format!("{} = [{}]", key.name, list.join(", "))
            }
            [value, ..] => format!("{} = {}", key.name, literal(value)),
        };
        match (origins, &setting.origin) {
            (Origins::Hidden, _) | (_, Origin::Default) if setting.values.is_empty() => {
                writeln!(text, "{line}")
            }
            (Origins::Hidden, _) => writeln!(text, "{line}"),
            (Origins::Shown, origin) => writeln!(text, "{line:<40} # {origin}"),
        }
        .ok();
    }
    text
}

fn count(values: &[String]) -> String {
    format!("{} value{}", values.len(), if values.len() == 1 { "" } else { "s" })
}

fn literal(value: &str) -> String {
    match value.parse::<i64>() {
        Ok(number) => number.to_string(),
        Err(_) => json!(value).to_string(),
    }
}

fn as_json(settings: &[Setting]) -> Value {
    let entries = settings.iter().map(|setting| {
        let key = setting.key;
        let value = match setting.values.as_slice() {
            [] => Value::Null,
            values if key.is_secret() => json!(count(values)),
            values if key.repeats() => json!(values),
            [value, ..] => value.parse::<i64>().map_or_else(|_| json!(value), |number| json!(number)),
        };
        let (origin, place) = match &setting.origin {
            Origin::Default => ("default", None),
            Origin::File { path, .. } => ("file", Some(path.display().to_string())),
            Origin::Variable(name) => ("environment", Some(name.clone())),
            Origin::Flag(flag) => ("flag", Some(flag.clone())),
        };
        (key.path(), json!({ "value": value, "origin": origin, "from": place, "flag": key.flag() }))
    });
    Value::Object(entries.collect::<Map<_, _>>())
}
