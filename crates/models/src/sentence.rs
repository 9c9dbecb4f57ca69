//! What a Sentence-Transformers folder says beside its weights: `modules.json` and the files it lists, the length at which
//! texts are cut, and the prompts that are put before them.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::checkpoint::describe;
use crate::config::{Config, POSITIONS, WIDTHS};
use crate::head::{Pooling, Scaling};
use crate::repository::is_plain_name;
use crate::{ModelError, Repository};

const MODULES: &str = "modules.json";
const LENGTH: &str = "sentence_bert_config.json";
const PROMPTS: &str = "config_sentence_transformers.json";
const TOKENIZER: &str = "tokenizer_config.json";

/// How the folder wants texts to be read and pooled.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SentenceSettings {
    pub(crate) pooling: Pooling,
    pub(crate) scaling: Scaling,
    /// Tokens at which texts are cut, special ones included.
    pub(crate) max_tokens: usize,
    pub(crate) case: Case,
    pub(crate) prompts: Prompts,
}

/// What happens to the letters of a text before it is tokenised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Case {
    #[default]
    Kept,
    Lower,
}

/// Texts that the model was trained to see before others, by name: `query`, `document`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prompts {
    by_name: BTreeMap<String, String>,
    default: Option<String>,
}

impl Prompts {
    /// The prompt of that name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.by_name.get(name).map(String::as_str)
    }

    /// The prompt that texts get where none is asked for; empty if there is none.
    pub fn default_prompt(&self) -> &str {
        self.default.as_deref().and_then(|name| self.get(name)).unwrap_or_default()
    }

    /// All names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }

    fn read(repository: &Repository) -> Result<Self, ModelError> {
        if !repository.contains(PROMPTS) {
            return Ok(Self::default());
        }
        let file = Config::read_file(repository, PROMPTS)?;
        let mut by_name = BTreeMap::new();
        let prompts = file.get("prompts");
        let wrong = |found: &Value| file.wrong("prompts", "an object of names and texts", found);
        for (name, prompt) in prompts
            .map_or(Ok(None), |all| all.as_object().map(Some).ok_or_else(|| wrong(all)))?
            .into_iter()
            .flatten()
        {
            by_name.insert(name.clone(), prompt.as_str().ok_or_else(|| wrong(prompt))?.to_owned());
        }
        Ok(Self { by_name, default: file.text("default_prompt_name")?.map(str::to_owned) })
    }
}

impl SentenceSettings {
    /// What a folder without `modules.json` says: the mean of the hidden states is scaled to unit length. Texts are cut
    /// at `max_positions` at the latest.
    pub(crate) fn plain(repository: &Repository, max_positions: usize) -> Result<Self, ModelError> {
        Ok(Self {
            pooling: Pooling::Mean,
            scaling: Scaling::Unit,
            max_tokens: max_tokens(repository)?.unwrap_or(max_positions).min(max_positions),
            case: case(repository)?,
            prompts: Prompts::read(repository)?,
        })
    }

    /// Goes by `modules.json` where there is one, for hidden states of that width, and tells whether there is.
    pub(crate) fn read_modules(
        &mut self,
        repository: &Repository,
        hidden: usize,
    ) -> Result<bool, ModelError> {
        if !repository.contains(MODULES) {
            return Ok(false);
        }
        self.scaling = Scaling::AsIs;
        let modules = repository.json(MODULES)?;
        let wrong = |key: &str, expected: &str, found: &Value| ModelError::Field {
            path: repository.path(MODULES),
            key: key.to_owned(),
            expected: expected.to_owned(),
            found: describe(found),
        };
        let list = modules.as_array().ok_or_else(|| wrong("(whole file)", "a list of modules", &modules))?;
        for (index, module) in list.iter().enumerate() {
            let full = module["type"].as_str().unwrap_or_default();
            match full.rsplit('.').next().unwrap_or_default() {
                "Transformer" => {}
                "Normalize" => self.scaling = Scaling::Unit,
                "Pooling" => {
                    let path = module["path"].as_str().filter(|path| is_plain_name(path));
                    let path = path.ok_or_else(|| {
                        wrong(&format!("{index}.path"), "the name of a folder", &module["path"])
                    })?;
                    self.pooling = pooling(repository, path, hidden)?;
                }
                _ => {
                    let expected = "Transformer, Pooling or Normalize";
                    return Err(wrong(&format!("{index}.type"), expected, &module["type"]));
                }
            }
        }
        Ok(true)
    }
}

/// The pooling that a module's own config.json asks for.
fn pooling(repository: &Repository, folder: &str, hidden: usize) -> Result<Pooling, ModelError> {
    const MODES: [(&str, &str, Pooling); 4] = [
        ("pooling_mode_mean_tokens", "mean", Pooling::Mean),
        ("pooling_mode_cls_token", "cls", Pooling::Cls),
        ("pooling_mode_max_tokens", "max", Pooling::Max),
        ("pooling_mode_lasttoken", "lasttoken", Pooling::Last),
    ];
    let file = Config::read_file(repository, &format!("{folder}/config.json"))?;
    if let Some(width) = file.optional_count("word_embedding_dimension", WIDTHS)?
        && width != hidden
    {
        let expected = format!("the width of the hidden states, {hidden}");
        return Err(file.wrong("word_embedding_dimension", &expected, &width.into()));
    }
    file.require("include_prompt", "true", |value| *value == true)?;
    if let Some(mode) = file.text("pooling_mode")? {
        let known = MODES.iter().find(|(_, name, _)| *name == mode);
        return known
            .map(|(.., pooling)| *pooling)
            .ok_or_else(|| file.wrong("pooling_mode", "mean, cls, max or lasttoken", &Value::from(mode)));
    }
    for other in ["pooling_mode_mean_sqrt_len_tokens", "pooling_mode_weightedmean_tokens"] {
        file.require(other, "false (only mean, cls, max and last token are read)", |value| *value == false)?;
    }
    let mut chosen = None;
    for (key, _, pooling) in MODES {
        if file.flag(key)? == Some(true) && chosen.replace(pooling).is_some() {
            return Err(file.wrong(key, "false, since only one pooling is read", &Value::from(true)));
        }
    }
    chosen.ok_or_else(|| file.wrong("pooling_mode_mean_tokens", "one pooling that is true", &Value::Null))
}

/// The length at which the folder wants texts cut, if it says so: its own file wins over what the tokenizer says.
fn max_tokens(repository: &Repository) -> Result<Option<usize>, ModelError> {
    if repository.contains(LENGTH) {
        let own = Config::read_file(repository, LENGTH)?.optional_count("max_seq_length", POSITIONS)?;
        if own.is_some() {
            return Ok(own);
        }
    }
    if !repository.contains(TOKENIZER) {
        return Ok(None);
    }
    // Tokenizers without a bound say 1e30.
    let bound =
        Config::read_file(repository, TOKENIZER)?.optional_number("model_max_length", 1.0..=f64::MAX)?;
    Ok(bound.map(|bound| bound as usize))
}

fn case(repository: &Repository) -> Result<Case, ModelError> {
    if !repository.contains(LENGTH) {
        return Ok(Case::Kept);
    }
    let lower = Config::read_file(repository, LENGTH)?.flag("do_lower_case")?;
    Ok(if lower == Some(true) { Case::Lower } else { Case::Kept })
}

#[cfg(test)]
mod tests {
    use super::*;

    type Files = Vec<(&'static str, &'static [u8])>;

    fn read(files: Files) -> Result<SentenceSettings, String> {
        let repository = Repository::embedded("m", files.leak());
        let mut settings = SentenceSettings::plain(&repository, 512).map_err(|error| error.to_string())?;
        settings.read_modules(&repository, 8).map_err(|error| error.to_string())?;
        Ok(settings)
    }

    fn module(kind: &str, path: &str) -> String {
        format!(r#"{{"idx": 0, "path": "{path}", "type": "sentence_transformers.models.{kind}"}}"#)
    }

    fn pooled(config: &'static str, more: &[&str]) -> Result<SentenceSettings, String> {
        let kinds = ["Transformer", "Pooling"].iter().chain(more);
        let list: Vec<String> =
            kinds.map(|kind| module(kind, if *kind == "Pooling" { "1_Pooling" } else { "" })).collect();
        let modules = format!("[{}]", list.join(",")).into_bytes().leak();
        read(vec![(MODULES, modules), ("1_Pooling/config.json", config.as_bytes())])
    }

    #[test]
    fn poolings_and_scaling_are_what_the_files_say() {
        let check = |config, more: &[&str], pooling, scaling| {
            let settings = pooled(config, more).unwrap();
            assert_eq!((settings.pooling, settings.scaling), (pooling, scaling), "{config}");
        };
        check(r#"{"pooling_mode_mean_tokens": true}"#, &["Normalize"], Pooling::Mean, Scaling::Unit);
        check(r#"{"pooling_mode_cls_token": true}"#, &[], Pooling::Cls, Scaling::AsIs);
        check(
            r#"{"pooling_mode_max_tokens": true, "pooling_mode_mean_tokens": false}"#,
            &[],
            Pooling::Max,
            Scaling::AsIs,
        );
        check(r#"{"pooling_mode": "lasttoken"}"#, &["Normalize"], Pooling::Last, Scaling::Unit);
        let plain = read(Vec::new()).unwrap();
        assert_eq!((plain.pooling, plain.scaling, plain.max_tokens), (Pooling::Mean, Scaling::Unit, 512));
    }

    #[test]
    fn lengths_and_prompts_are_what_the_files_say() {
        let length = |own: &'static str, tokenizer: &'static str| {
            read(vec![(LENGTH, own.as_bytes()), (TOKENIZER, tokenizer.as_bytes())]).unwrap().max_tokens
        };
        assert_eq!(length(r#"{"max_seq_length": 256}"#, r#"{"model_max_length": 128}"#), 256);
        assert_eq!(length(r#"{"max_seq_length": null}"#, r#"{"model_max_length": 128}"#), 128);
        assert_eq!(length(r#"{"max_seq_length": 9000}"#, "{}"), 512);
        assert_eq!(length("{}", r#"{"model_max_length": 1e30}"#), 512);
        let prompts = br#"{"prompts": {"query": "query: ", "x": ""}, "default_prompt_name": "query"}"#;
        let prompts = read(vec![(PROMPTS, prompts)]).unwrap().prompts;
        assert_eq!(
            (prompts.default_prompt(), prompts.get("x"), prompts.get("y")),
            ("query: ", Some(""), None)
        );
    }

    #[test]
    fn what_is_not_read_is_refused_by_name() {
        let refused = |found: Result<SentenceSettings, String>, expected: &str| {
            let message = found.unwrap_err();
            assert!(message.contains(expected), "{message}");
        };
        refused(
            pooled("{}", &[]),
            "'pooling_mode_mean_tokens': expected one pooling that is true, found nothing",
        );
        refused(
            pooled(r#"{"pooling_mode_mean_tokens": true, "pooling_mode_cls_token": true}"#, &[]),
            "only one pooling",
        );
        refused(
            pooled(r#"{"pooling_mode_weightedmean_tokens": true}"#, &[]),
            "pooling_mode_weightedmean_tokens",
        );
        refused(pooled(r#"{"pooling_mode": "attention"}"#, &[]), "expected mean, cls, max or lasttoken");
        refused(
            pooled(r#"{"word_embedding_dimension": 9}"#, &[]),
            "the width of the hidden states, 8, found 9",
        );
        refused(pooled(r#"{"include_prompt": false}"#, &[]), "'include_prompt': expected true, found false");
        refused(
            pooled(r#"{"pooling_mode_cls_token": true}"#, &["Dense"]),
            "expected Transformer, Pooling or Normalize",
        );
        let outside = format!("[{}]", module("Pooling", "../elsewhere")).into_bytes().leak();
        refused(read(vec![(MODULES, outside)]), "expected the name of a folder, found '../elsewhere'");
        refused(read(vec![(MODULES, b"{}")]), "expected a list of modules, found an object");
        refused(read(vec![(PROMPTS, br#"{"prompts": ["a"]}"#)]), "an object of names and texts");
    }
}
