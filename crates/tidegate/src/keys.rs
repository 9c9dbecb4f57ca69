//! The server's part of the settings, as the HTTP front takes it; and the files that API keys stand in.

use std::path::Path;

use server::{Fetching, Key, Keys, Limits, Timeouts};

use crate::OpenError;
use crate::settings::{Secret, Settings};

/// What the HTTP front is told.
///
/// # Errors
/// When the file with API keys cannot be read or holds none, or when a key is written wrongly.
pub fn serve_settings(settings: &Settings) -> Result<server::Settings, OpenError> {
    let Settings { server: settings, tenants, .. } = settings;
    let mut keys = Keys::default();
    for (index, secret) in settings.api_key.iter().enumerate() {
        let key = parse(secret.reveal(), || "--api-key".to_owned())?;
        keys = keys.with(format!("key-{}", index + 1), key);
    }
    if let Some(path) = &settings.api_keys_file {
        let text = std::fs::read_to_string(path)
            .map_err(|source| OpenError::KeysFile { path: path.clone(), source })?;
        keys = with_file(keys, path, &text)?;
    }
    let body_bytes = usize::try_from(settings.body_limit.0).unwrap_or(usize::MAX);
    let single = |secret: &Option<Secret>, flag: &str| {
        secret.as_ref().map(|secret| parse(secret.reveal(), || flag.to_owned())).transpose()
    };
    Ok(server::Settings {
        keys,
        metrics_key: single(&settings.metrics_key, "--metrics-key")?,
        admin_key: single(&settings.admin_key, "--admin-key")?,
        aliases: settings.metrics_aliases.map(Into::into),
        quotas: tenants.quotas(),
        limits: Limits { body_bytes, ..Limits::default() },
        fetching: Fetching {
            hosts: settings.image_hosts.clone(),
            time: settings.image_timeout.0,
            ..Fetching::default()
        },
        timeouts: Timeouts { shutdown: settings.shutdown_timeout.0, ..Timeouts::default() },
        overload: settings.overload_status.into(),
        connections: settings.max_connections.get(),
    })
}

/// Adds the keys of a file: one a line, `KEY` or `NAME KEY`. The name is the tenant whose work the key asks for.
fn with_file(mut keys: Keys, path: &Path, text: &str) -> Result<Keys, OpenError> {
    let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim()));
    let mut found = false;
    for (number, line) in lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
        let (name, written) = match line.split_once(char::is_whitespace) {
            Some((name, written)) => (name.to_owned(), written.trim()),
            None => (format!("line-{number}"), line),
        };
        keys = keys.with(name, parse(written, || format!("{} line {number}", path.display()))?);
        found = true;
    }
    if found { Ok(keys) } else { Err(OpenError::NoKeys { path: path.to_owned() }) }
}

fn parse(written: &str, place: impl Fn() -> String) -> Result<Key, OpenError> {
    Key::parse(written).map_err(|source| OpenError::Key { place: place(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_files() {
        let check = |text: &str, expected: &str| {
            let found = match with_file(Keys::default(), Path::new("keys"), text) {
                Ok(keys) => format!("{keys:?}"),
                Err(error) => error.to_string(),
            };
            assert!(found.contains(expected), "{text:?} gave {found}");
        };
        check("# team\nalice   secret\n", "(\"alice\", Key(sha256:2bb8…))");
        check("\nsecret\n", "(\"line-2\", Key(sha256:2bb8…))");
        check("# nothing\n\n", "keys holds no API key");
        check("alice sha256:123", "keys line 1 cannot be used: a stored key is written sha256:");
    }
}
