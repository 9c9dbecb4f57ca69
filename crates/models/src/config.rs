//! config.json, read key by key: every number is checked against bounds before anything is made from it.
//!
//! Two styles are in use: files on the hub say `rope_theta`, `rope_scaling` and `torch_dtype`; files written by
//! transformers 5 say `rope_parameters` and `dtype`. Both are read. GGUF files say the same under flat keys of their own.

use std::borrow::Cow;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use serde_json::{Map, Value};
use tensor::Dtype;

use crate::checkpoint::describe;
use crate::{ModelError, Repository, gguf};

/// The most that any width, count of heads or vocabulary may be; far above every published model, and small enough
/// that products of three of them fit 64 bits.
pub(crate) const WIDTHS: RangeInclusive<usize> = 1..=(1 << 20);
/// Decoder layers.
pub(crate) const LAYERS: RangeInclusive<usize> = 1..=4096;
/// Positions.
pub(crate) const POSITIONS: RangeInclusive<usize> = 1..=(1 << 27);

/// A parsed JSON file of settings.
#[derive(Clone, Debug)]
pub struct Config {
    path: PathBuf,
    root: Value,
    keys: Keys,
}

/// How keys are found.
#[derive(Clone, Debug)]
enum Keys {
    /// Dots go down into objects.
    Nested,
    /// As `Nested`, from an object of the file on that has this key.
    Section(&'static str),
    /// All values stand side by side under keys of their own, of which some are written otherwise than they are asked
    /// for.
    Flat { written: Vec<(&'static str, String)> },
}

impl Config {
    /// Reads `config.json`, or what stands for it in a GGUF file.
    ///
    /// # Errors
    /// When it is missing or no JSON object, or no family reads the GGUF file.
    pub fn read(repository: &Repository) -> Result<Self, ModelError> {
        match repository.gguf() {
            Some(file) => gguf::config(file),
            None => Self::read_file(repository, "config.json"),
        }
    }

    /// Settings that are `written` under other keys than they are asked for.
    pub(crate) fn flat(
        path: PathBuf,
        root: Map<String, Value>,
        written: Vec<(&'static str, String)>,
    ) -> Self {
        Self { path, root: Value::Object(root), keys: Keys::Flat { written } }
    }

    /// Reads another file of settings.
    ///
    /// # Errors
    /// When it is missing or no JSON object.
    pub(crate) fn read_file(repository: &Repository, file: &str) -> Result<Self, ModelError> {
        let config = Self { path: repository.path(file), root: repository.json(file)?, keys: Keys::Nested };
        match config.root {
            Value::Object(_) => Ok(config),
            _ => Err(config.wrong("(whole file)", "an object", &config.root)),
        }
    }

    /// The settings of a part of the model, which stand in an object of their own.
    pub(crate) fn section(&self, key: &'static str) -> Result<Self, ModelError> {
        match self.get(key) {
            Some(root @ Value::Object(_)) => {
                Ok(Self { path: self.path.clone(), root: root.clone(), keys: Keys::Section(key) })
            }
            found => Err(self.wrong(key, "an object of settings", found.unwrap_or(&Value::Null))),
        }
    }

    /// The value at `key`, where dots go down into objects; `null` counts as absent.
    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        let found = match &self.keys {
            Keys::Nested | Keys::Section(_) => {
                key.split('.').try_fold(&self.root, |value, part| value.get(part))?
            }
            Keys::Flat { .. } => self.root.get(&*self.written(key))?,
        };
        (!found.is_null()).then_some(found)
    }

    /// The key as the file writes it.
    fn written<'k>(&'k self, key: &'k str) -> Cow<'k, str> {
        match &self.keys {
            Keys::Nested => Cow::Borrowed(key),
            Keys::Section(section) => Cow::Owned(format!("{section}.{key}")),
            Keys::Flat { written } => {
                let found = written.iter().find(|(asked, _)| *asked == key);
                Cow::Borrowed(found.map_or(key, |(_, written)| written))
            }
        }
    }

    /// A text.
    pub(crate) fn text(&self, key: &str) -> Result<Option<&str>, ModelError> {
        self.optional(key, "a text", Value::as_str)
    }

    /// A yes or no.
    pub(crate) fn flag(&self, key: &str) -> Result<Option<bool>, ModelError> {
        self.optional(key, "true or false", Value::as_bool)
    }

    /// A whole number within `bounds` that must be there.
    pub(crate) fn count(&self, key: &str, bounds: RangeInclusive<usize>) -> Result<usize, ModelError> {
        let found = self.optional_count(key, bounds.clone())?;
        found.ok_or_else(|| self.wrong(key, &whole(&bounds), &Value::Null))
    }

    /// A whole number within `bounds`, if it is there.
    pub(crate) fn optional_count(
        &self,
        key: &str,
        bounds: RangeInclusive<usize>,
    ) -> Result<Option<usize>, ModelError> {
        self.optional(key, &whole(&bounds), |value| {
            let number = usize::try_from(value.as_u64()?).ok()?;
            bounds.contains(&number).then_some(number)
        })
    }

    /// A number within `bounds`, if it is there.
    pub(crate) fn optional_number(
        &self,
        key: &str,
        bounds: RangeInclusive<f64>,
    ) -> Result<Option<f64>, ModelError> {
        let expected = format!("a number from {} to {}", bounds.start(), bounds.end());
        self.optional(key, &expected, |value| value.as_f64().filter(|number| bounds.contains(number)))
    }

    /// One token id or a list of them; none if the key is absent.
    pub(crate) fn token_ids(&self, key: &str) -> Result<Option<Vec<u32>>, ModelError> {
        let id = |value: &Value| u32::try_from(value.as_u64()?).ok();
        self.optional(key, "a token id or a list of them", |value| match value {
            Value::Array(items) => items.iter().map(id).collect(),
            other => id(other).map(|only| vec![only]),
        })
    }

    /// Refuses the file unless `key` is absent or has a value that `accepted` takes; `expected` says which.
    pub(crate) fn require(
        &self,
        key: &str,
        expected: &str,
        accepted: impl Fn(&Value) -> bool,
    ) -> Result<(), ModelError> {
        self.optional(key, expected, |value| accepted(value).then_some(())).map(|_| ())
    }

    /// The error for a value that is not as expected.
    pub(crate) fn wrong(&self, key: &str, expected: &str, found: &Value) -> ModelError {
        ModelError::Field {
            path: self.path.clone(),
            key: self.written(key).into_owned(),
            expected: expected.to_owned(),
            found: describe(found),
        }
    }

    /// The element type that the checkpoint says its weights have.
    pub(crate) fn dtype(&self) -> Result<Option<Dtype>, ModelError> {
        // Models that see say it of the part that writes.
        let keys = ["dtype", "torch_dtype", "text_config.dtype", "text_config.torch_dtype"];
        let key = keys.into_iter().find(|key| self.get(key).is_some()).unwrap_or(keys[0]);
        self.optional(key, "float32, bfloat16 or float16", |value| match value.as_str()? {
            "float32" | "torch.float32" => Some(Dtype::F32),
            "bfloat16" | "torch.bfloat16" => Some(Dtype::Bf16),
            "float16" | "torch.float16" => Some(Dtype::F16),
            _ => None,
        })
    }

    /// Base of the rotary frequencies, after refusing every scaling of them; `implied` where it is not there.
    pub(crate) fn rope_theta(&self, implied: f64) -> Result<f64, ModelError> {
        for group in ["rope_scaling", "rope_parameters"] {
            for kind in ["rope_type", "type"] {
                let key = format!("{group}.{kind}");
                self.require(&key, "'default' (scaled rope is not supported)", |value| value == "default")?;
            }
            self.require(group, "an object of rope settings", Value::is_object)?;
        }
        for key in ["partial_rotary_factor", "rope_parameters.partial_rotary_factor"] {
            self.require(key, "1 (partial rope is not supported)", |value| value.as_f64() == Some(1.0))?;
        }
        let nested = "rope_parameters.rope_theta";
        let key = if self.get(nested).is_some() { nested } else { "rope_theta" };
        Ok(self.optional_number(key, 1.0..=1e12)?.unwrap_or(implied))
    }

    fn optional<'v, T>(
        &'v self,
        key: &str,
        expected: &str,
        read: impl FnOnce(&'v Value) -> Option<T>,
    ) -> Result<Option<T>, ModelError> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => match read(value) {
                Some(read) => Ok(Some(read)),
                None => Err(self.wrong(key, expected, value)),
            },
        }
    }
}

fn whole(bounds: &RangeInclusive<usize>) -> String {
    format!("a whole number from {} to {}", bounds.start(), bounds.end())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        Config { path: "config.json".into(), root: serde_json::from_str(text).unwrap(), keys: Keys::Nested }
    }

    #[test]
    fn rope_and_dtype_are_read_in_both_styles() {
        let hub = config(r#"{"rope_theta": 1000000, "rope_scaling": null, "torch_dtype": "bfloat16"}"#);
        let v5 = config(
            r#"{"rope_parameters": {"rope_theta": 1e6, "rope_type": "default"}, "dtype": "bfloat16"}"#,
        );
        for style in [hub, v5] {
            assert_eq!(style.rope_theta(1e4).unwrap(), 1e6);
            assert_eq!(style.dtype().unwrap(), Some(Dtype::Bf16));
        }
        assert_eq!(config("{}").rope_theta(1e4).unwrap(), 10_000.0);
    }

    #[test]
    fn refusals_name_key_expectation_and_finding() {
        let check = |text: &str, read: fn(&Config) -> Option<ModelError>, message: &str| {
            assert_eq!(
                read(&config(text)).map(|error| error.to_string()).as_deref(),
                Some(message),
                "{text}"
            );
        };
        let theta = |config: &Config| config.rope_theta(1e4).err();
        let heads = |config: &Config| config.count("heads", 1..=8).err();
        check(
            r#"{"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}"#,
            theta,
            "config.json: 'rope_scaling.rope_type': expected 'default' (scaled rope is not supported), found 'yarn'",
        );
        check(
            r#"{"rope_theta": -1}"#,
            theta,
            "config.json: 'rope_theta': expected a number from 1 to 1000000000000, found -1",
        );
        check(
            r#"{"rope_scaling": "linear"}"#,
            theta,
            "config.json: 'rope_scaling': expected an object of rope settings, found 'linear'",
        );
        for (text, found) in [
            ("{}", "nothing"),
            (r#"{"heads": 0}"#, "0"),
            (r#"{"heads": 9}"#, "9"),
            (r#"{"heads": -3}"#, "-3"),
            (r#"{"heads": 4.5}"#, "4.5"),
            (r#"{"heads": 1e99}"#, "1e+99"),
            (r#"{"heads": [4]}"#, "a list of 1"),
            (r#"{"heads": "4"}"#, "'4'"),
        ] {
            let message = format!("config.json: 'heads': expected a whole number from 1 to 8, found {found}");
            check(text, heads, &message);
        }
    }
}
