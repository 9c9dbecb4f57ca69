//! What is wrong with a configuration.

use std::path::PathBuf;

use super::Origin;

/// What is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// The command line does not parse, or asks for help.
    #[error(transparent)]
    Arguments(clap::Error),
    /// The configuration file cannot be read.
    #[error("cannot read the configuration file {}: {source}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The configuration file is not TOML.
    #[error("{} is not valid TOML: {message}", path.display())]
    NotToml {
        /// Which file.
        path: PathBuf,
        /// Where and why.
        message: String,
    },
    /// The configuration file holds a key that is not a setting.
    #[error(
        "{}: '{key}' is not a setting{}; `tidegate config show` lists all",
        path.display(),
        near.as_ref().map_or_else(String::new, |near| format!("; did you mean '{near}'?"))
    )]
    UnknownKey {
        /// Which file.
        path: PathBuf,
        /// The key, with its section.
        key: String,
        /// A setting with a similar name.
        near: Option<String>,
    },
    /// A value cannot be used.
    #[error("{origin}: {message}")]
    BadValue {
        /// Where the value stands.
        origin: Origin,
        /// What is wrong and what would be right.
        message: String,
    },
}
