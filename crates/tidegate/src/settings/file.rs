//! The configuration file: TOML whose every key must be known.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::{KEYS, Key, Origin, SettingsError};

/// The values of a configuration file, as texts that the setting's own parser understands.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConfigFile {
    path: PathBuf,
    values: BTreeMap<&'static str, Vec<String>>,
}

impl ConfigFile {
    /// Reads a file.
    ///
    /// # Errors
    /// When it cannot be read, is not TOML, or holds a key that is not a setting.
    pub fn read(path: &Path) -> Result<Self, SettingsError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| SettingsError::Io { path: path.to_owned(), source })?;
        Self::parse(path, &text)
    }

    /// Reads the text of a file; `path` is for messages.
    ///
    /// # Errors
    /// When it is not TOML, or holds a key that is not a setting.
    pub fn parse(path: &Path, text: &str) -> Result<Self, SettingsError> {
        let table = text.parse::<Table>().map_err(|error| SettingsError::NotToml {
            path: path.to_owned(),
            message: error.to_string().trim_end().to_owned(),
        })?;
        let mut file = Self { path: path.to_owned(), values: BTreeMap::new() };
        for (section, value) in &table {
            match value {
                Value::Table(entries) if KEYS.iter().any(|key| key.section == section) => {
                    for (name, value) in entries {
                        file.take(section, name, value)?;
                    }
                }
                _ => return Err(file.unknown(section)),
            }
        }
        Ok(file)
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the file says about a setting, if it says something.
    pub fn values(&self, id: &str) -> Option<&[String]> {
        self.values.get(id).map(Vec::as_slice)
    }

    /// The settings that the file mentions.
    pub(super) fn keys(&self) -> impl Iterator<Item = (&'static Key, &[String])> {
        KEYS.iter().filter_map(|key| Some((key, self.values(key.id)?)))
    }

    fn take(&mut self, section: &str, name: &str, value: &Value) -> Result<(), SettingsError> {
        let full = format!("{section}.{name}");
        let key = KEYS.iter().find(|key| key.section == section && key.name == name);
        let key = key.ok_or_else(|| self.unknown(&full))?;
        let bad = |found: &Value| SettingsError::BadValue {
            origin: Origin::File { path: self.path.clone(), key: full.clone() },
            message: format!("expected a text or a number, found {}", article(found.type_str())),
        };
        let texts = match value {
            Value::Array(items) if key.repeats() => {
                items.iter().map(|item| scalar(item).ok_or_else(|| bad(item))).collect::<Result<_, _>>()?
            }
            value => vec![scalar(value).ok_or_else(|| bad(value))?],
        };
        self.values.insert(key.id, texts);
        Ok(())
    }

    fn unknown(&self, key: &str) -> SettingsError {
        SettingsError::UnknownKey { path: self.path.clone(), key: key.to_owned(), near: near(key) }
    }
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(number) => Some(number.to_string()),
        Value::Float(number) => Some(number.to_string()),
        _ => None,
    }
}

fn article(kind: &str) -> String {
    let vowel = kind.starts_with(['a', 'e', 'i', 'o', 'u']);
    format!("{} {kind}", if vowel { "an" } else { "a" })
}

/// The setting that someone who wrote `key` may have meant, whether by its name here or by that of its flag.
fn near(key: &str) -> Option<String> {
    let written = key.replace('-', "_").to_ascii_lowercase();
    let names = KEYS.iter().flat_map(|key| [(key.path(), key), (key.id.to_owned(), key)]);
    names
        .map(|(name, key)| (strsim::osa_distance(&written, &name), name.len(), key))
        .filter(|(distance, length, _)| *distance <= length.min(&written.len()) / 3)
        .min_by_key(|(distance, ..)| *distance)
        .map(|(.., key)| key.path())
}
