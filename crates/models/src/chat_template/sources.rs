//! Where a model folder keeps its chat template.

use std::path::PathBuf;

use serde_json::{Map, Value};

use super::DEFAULT;
use crate::config::Config;
use crate::{ModelError, Repository, gguf};

const JINJA: &str = "chat_template.jinja";
const JSON: &str = "chat_template.json";
const CONFIG: &str = "tokenizer_config.json";

/// Special tokens whose texts templates may name.
const TOKENS: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// The texts of a model's chat templates.
pub(super) struct Sources {
    /// The file they come from.
    pub(super) path: PathBuf,
    /// Name and text of each; one of them is [`DEFAULT`].
    pub(super) templates: Vec<(String, String)>,
    /// Special tokens by name.
    pub(super) tokens: Map<String, Value>,
}

impl Sources {
    /// The templates of the first file that has any.
    pub(super) fn read(repository: &Repository) -> Result<Option<Self>, ModelError> {
        if let Some(file) = repository.gguf() {
            let Some(templates) = gguf::chat::templates(file, DEFAULT)? else { return Ok(None) };
            let tokens = gguf::chat::special_tokens(file)?;
            return Ok(Some(Self { path: file.path().to_owned(), templates, tokens }));
        }
        let read = |file| repository.contains(file).then(|| Config::read_file(repository, file)).transpose();
        let config = read(CONFIG)?;
        let tokens = config.as_ref().map(special_tokens).unwrap_or_default();
        let found = |file, templates| Ok(Some(Self { path: repository.path(file), templates, tokens }));

        if repository.contains(JINJA) {
            let text = String::from_utf8_lossy(&repository.read(JINJA)?).into_owned();
            return found(JINJA, vec![(DEFAULT.to_owned(), text)]);
        }
        if let Some(templates) = read(JSON)?.as_ref().map(templates).transpose()?.flatten() {
            return found(JSON, templates);
        }
        match config.as_ref().map(templates).transpose()?.flatten() {
            Some(templates) => found(CONFIG, templates),
            None => Ok(None),
        }
    }
}

/// The value of `chat_template`: one text, or a list of named texts.
fn templates(file: &Config) -> Result<Option<Vec<(String, String)>>, ModelError> {
    let Some(value) = file.get("chat_template") else { return Ok(None) };
    let wrong = || file.wrong("chat_template", "a text, or a list of objects with name and template", value);
    let text = |item: &Value, key: &str| item.get(key).and_then(Value::as_str).map(str::to_owned);
    match value {
        Value::String(only) => Ok(Some(vec![(DEFAULT.to_owned(), only.clone())])),
        Value::Array(items) => {
            let named = items.iter().map(|item| Some((text(item, "name")?, text(item, "template")?)));
            let named: Vec<_> = named.collect::<Option<_>>().ok_or_else(wrong)?;
            if named.iter().any(|(name, _)| name == DEFAULT) { Ok(Some(named)) } else { Err(wrong()) }
        }
        _ => Err(wrong()),
    }
}

/// Special tokens are texts or objects with their text as `content`.
fn special_tokens(file: &Config) -> Map<String, Value> {
    let text = |name: &str| {
        let value = file.get(name)?;
        let text = value.as_str().or_else(|| value.get("content")?.as_str())?;
        Some((name.to_owned(), Value::from(text)))
    };
    TOKENS.iter().filter_map(|name| text(name)).collect()
}
