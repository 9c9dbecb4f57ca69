//! generation_config.json: sampling defaults and end-of-sequence tokens.

use crate::config::Config;
use crate::{ModelError, Repository};

const FILE: &str = "generation_config.json";

/// What the checkpoint recommends.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GenerationDefaults {
    /// Ids that end a generation (generation_config.json, else config.json), below the model's vocabulary.
    pub eos_token_ids: Vec<u32>,
    /// First token of an empty prompt, if the model has one.
    pub bos_token_id: Option<u32>,
    /// 0 where `do_sample` is false.
    pub temperature: Option<f32>,
    /// Keep the k most probable.
    pub top_k: Option<u32>,
    /// Keep the most probable mass.
    pub top_p: Option<f32>,
    /// Relative floor.
    pub min_p: Option<f32>,
    /// Multiplicative penalty.
    pub repetition_penalty: Option<f32>,
}

impl GenerationDefaults {
    /// Reads the defaults from `generation_config.json`, if there is one, and token ids that it lacks from `config`.
    /// The `config` of a GGUF file has both.
    ///
    /// # Errors
    /// When a value has the wrong type or is out of bounds; an id must be below `vocabulary`.
    pub fn read(repository: &Repository, config: &Config, vocabulary: usize) -> Result<Self, ModelError> {
        let own = match repository.gguf() {
            Some(_) => Some(config.clone()),
            None if repository.contains(FILE) => Some(Config::read_file(repository, FILE)?),
            None => None,
        };
        let mut defaults = own.as_ref().map(Self::sampling).transpose()?.unwrap_or_default();
        // Models that see say it of the part that writes.
        let text = config.section("text_config").ok();
        let sources: Vec<&Config> = own.iter().chain([config]).chain(&text).collect();
        defaults.eos_token_ids = token_ids(&sources, "eos_token_id", vocabulary)?;
        defaults.bos_token_id = token_ids(&sources, "bos_token_id", vocabulary)?.first().copied();
        Ok(defaults)
    }

    fn sampling(file: &Config) -> Result<Self, ModelError> {
        let number = |key, low: f64, high: f64| -> Result<Option<f32>, ModelError> {
            Ok(file.optional_number(key, low..=high)?.map(|number| number as f32))
        };
        let temperature = number("temperature", 0.0, 100.0)?;
        let greedy = file.flag("do_sample")? == Some(false);
        let top_k = file.optional_count("top_k", 0..=u32::MAX as usize)?;
        Ok(Self {
            temperature: if greedy { Some(0.0) } else { temperature },
            top_k: top_k.map(|k| k as u32),
            top_p: number("top_p", 1e-6, 1.0)?,
            min_p: number("min_p", 0.0, 1.0)?,
            repetition_penalty: number("repetition_penalty", 1e-3, 1e3)?,
            ..Self::default()
        })
    }
}

/// The ids that the first of `sources` with the key has.
fn token_ids(sources: &[&Config], key: &str, vocabulary: usize) -> Result<Vec<u32>, ModelError> {
    for source in sources {
        let Some(ids) = source.token_ids(key)? else { continue };
        return match ids.iter().find(|id| **id as usize >= vocabulary) {
            None => Ok(ids),
            Some(id) => {
                Err(source.wrong(key, &format!("ids below the vocabulary of {vocabulary}"), &(*id).into()))
            }
        };
    }
    Ok(Vec::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &[u8] = br#"{"eos_token_id": 5, "bos_token_id": 1}"#;

    fn read(files: &'static [(&'static str, &'static [u8])]) -> Result<GenerationDefaults, ModelError> {
        let repository = Repository::embedded("m", files);
        GenerationDefaults::read(&repository, &Config::read(&repository)?, 100)
    }

    #[test]
    fn own_file_wins_and_config_fills_the_gaps() {
        let sampled = read(&[
            ("config.json", CONFIG),
            (
                FILE,
                br#"{"do_sample": true, "eos_token_id": [7, 8], "temperature": 0.6, "top_k": 20, "top_p": 0.95}"#,
            ),
        ])
        .unwrap();
        assert_eq!(sampled.eos_token_ids, [7, 8]);
        assert_eq!(sampled.bos_token_id, Some(1));
        assert_eq!((sampled.temperature, sampled.top_k, sampled.top_p), (Some(0.6), Some(20), Some(0.95)));

        let greedy = read(&[("config.json", CONFIG), (FILE, br#"{"do_sample": false, "temperature": 0.6}"#)]);
        assert_eq!(greedy.unwrap().temperature, Some(0.0));

        let bare = read(&[("config.json", CONFIG)]).unwrap();
        assert_eq!(
            bare,
            GenerationDefaults { eos_token_ids: vec![5], bos_token_id: Some(1), ..Default::default() }
        );
    }

    #[test]
    fn nonsense_is_refused() {
        let error =
            read(&[("config.json", CONFIG), (FILE, br#"{"eos_token_id": 100}"#)]).unwrap_err().to_string();
        assert!(
            error.ends_with("'eos_token_id': expected ids below the vocabulary of 100, found 100"),
            "{error}"
        );
        let error = read(&[("config.json", CONFIG), (FILE, br#"{"top_p": 3}"#)]).unwrap_err().to_string();
        assert!(error.ends_with("'top_p': expected a number from 0.000001 to 1, found 3"), "{error}");
    }
}
