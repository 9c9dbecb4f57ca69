//! One layer over the other: flag, variable, file, default; and where every value came from.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Args, Command};

use super::{ConfigFile, KEYS, Settings, SettingsError};

/// The file that is read where none is named.
const DEFAULT_FILE: &str = "tidegate.toml";

/// A setting's names: its flag and variable follow from `id`, its place in the file is `[section] name`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// The flag without dashes, words joined by underscores.
    pub id: &'static str,
    /// Section of the configuration file.
    pub section: &'static str,
    /// Key in that section.
    pub name: &'static str,
    /// What holds where the setting has no value.
    pub unset: &'static str,
}

impl Key {
    /// The flag: `--max-queue`.
    pub fn flag(&self) -> String {
        format!("--{}", self.id.replace('_', "-"))
    }

    /// The environment variable: `TIDEGATE_MAX_QUEUE`.
    pub fn variable(&self) -> String {
        format!("TIDEGATE_{}", self.id.to_ascii_uppercase())
    }

    /// The key of the configuration file with its section: `queue.max`.
    pub fn path(&self) -> String {
        format!("{}.{}", self.section, self.name)
    }

    /// Whether the file may hold a list.
    pub fn repeats(&self) -> bool {
        matches!(
            self.id,
            "api_key"
                | "model"
                | "tenant_weight"
                | "tenant_rate_limit"
                | "tenant_token_limit"
                | "tenant_concurrency"
        )
    }

    /// Whether the value must not be shown.
    pub fn is_secret(&self) -> bool {
        matches!(self.id, "api_key" | "metrics_key")
    }
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The program itself.
    Default,
    /// The configuration file.
    File {
        /// Which file.
        path: PathBuf,
        /// The key with its section.
        key: String,
    },
    /// The environment.
    Variable(
        /// Name of the variable.
        String,
    ),
    /// The command line.
    Flag(
        /// The flag with its dashes.
        String,
    ),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, key } => write!(f, "{}: {key}", path.display()),
            Self::Variable(name) => f.write_str(name),
            Self::Flag(flag) => f.write_str(flag),
        }
    }
}

/// One setting with the value that counts.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    /// Its names.
    pub key: &'static Key,
    /// The texts given for it; none where it is unset.
    pub values: Vec<String>,
    /// Where they came from.
    pub origin: Origin,
}

/// A parsed command line over the environment, the configuration file and the defaults.
#[derive(Clone, Debug)]
pub struct Layers {
    matches: ArgMatches,
    file: Option<ConfigFile>,
    warnings: Vec<String>,
}

impl Layers {
    /// What clap's derived types are built from.
    pub fn matches(&self) -> &ArgMatches {
        &self.matches
    }

    /// Remarks that do not stop anything, such as a variable with an unknown name.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Every setting that the invoked verb knows.
    pub fn settings(&self) -> Vec<Setting> {
        let matches = innermost(&self.matches);
        let known = |key: &&'static Key| matches.try_contains_id(key.id).is_ok();
        KEYS.iter().filter(known).map(|key| self.setting(matches, key)).collect()
    }

    fn setting(&self, matches: &ArgMatches, key: &'static Key) -> Setting {
        let raw = matches.get_raw(key.id).into_iter().flatten();
        let values = raw.map(|text| text.to_string_lossy().into_owned()).collect();
        let in_file = self.file.as_ref().filter(|file| file.values(key.id).is_some());
        let origin = match (matches.value_source(key.id), in_file) {
            (Some(ValueSource::CommandLine), _) => Origin::Flag(key.flag()),
            (Some(ValueSource::EnvVariable), _) => Origin::Variable(key.variable()),
            (_, Some(file)) => Origin::File { path: file.path().to_owned(), key: key.path() },
            _ => Origin::Default,
        };
        Setting { key, values, origin }
    }
}

/// Parses `arguments` (the program's name first) over the environment, the file that its `--config` names (else
/// `./tidegate.toml`, if it exists) and the defaults.
///
/// # Errors
/// When the command line does not parse or asks for help, or when the file or a value in it is wrong.
pub fn layer(
    command: &Command,
    arguments: impl IntoIterator<Item = OsString>,
) -> Result<Layers, SettingsError> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let bare = command.clone().try_get_matches_from(&arguments).map_err(blame_environment)?;
    let file = match innermost(&bare).try_get_one::<PathBuf>("config").ok().flatten() {
        Some(path) => Some(ConfigFile::read(path)?),
        None if Path::new(DEFAULT_FILE).is_file() => Some(ConfigFile::read(Path::new(DEFAULT_FILE))?),
        None => None,
    };
    let matches = match &file {
        None => bare,
        Some(file) => {
            check_values(file)?;
            let command = with_defaults(command.clone(), file);
            command.try_get_matches_from(&arguments).map_err(blame_environment)?
        }
    };
    Ok(Layers { matches, file, warnings: unknown_variables() })
}

fn innermost(matches: &ArgMatches) -> &ArgMatches {
    matches.subcommand().map_or(matches, |(_, inner)| innermost(inner))
}

/// Makes the values of the file the defaults of the arguments, below flags and variables.
fn with_defaults(command: Command, file: &ConfigFile) -> Command {
    let command = command.mut_args(|arg| match file.values(arg.get_id().as_str()) {
        Some(values) => arg.default_values(values.to_vec()),
        None => arg,
    });
    command.mut_subcommands(|inner| with_defaults(inner, file))
}

fn arguments() -> Vec<Arg> {
    Settings::augment_args(Command::new("settings")).get_arguments().cloned().collect()
}

fn check_values(file: &ConfigFile) -> Result<(), SettingsError> {
    let arguments = arguments();
    for (key, values) in file.keys() {
        for value in values {
            let origin = || Origin::File { path: file.path().to_owned(), key: key.path() };
            check_value(&arguments, key, value)
                .map_err(|message| SettingsError::BadValue { origin: origin(), message })?;
        }
    }
    Ok(())
}

/// Lets the setting's own parser judge a value.
fn check_value(arguments: &[Arg], key: &Key, value: &str) -> Result<(), String> {
    let Some(arg) = arguments.iter().find(|arg| arg.get_id() == key.id) else { return Ok(()) };
    let command = Command::new("settings").no_binary_name(true).arg(arg.clone());
    match command.try_get_matches_from([format!("{}={value}", key.flag())]) {
        Ok(_) => Ok(()),
        Err(error) => Err(reason(&error)),
    }
}

/// The first paragraph of what clap says, without its prefix.
fn reason(error: &clap::Error) -> String {
    let text = error.to_string();
    let lines = text.lines().take_while(|line| !line.trim().is_empty()).map(str::trim);
    lines.collect::<Vec<_>>().join(" ").trim_start_matches("error: ").to_owned()
}

/// clap names the flag even where a variable holds the bad value; name the variable then.
fn blame_environment(error: clap::Error) -> SettingsError {
    if !matches!(error.kind(), ErrorKind::InvalidValue | ErrorKind::ValueValidation) {
        return SettingsError::Arguments(error);
    }
    let message = reason(&error);
    let arguments = arguments();
    for key in KEYS {
        let Some(value) = variable(&key.variable()) else { continue };
        if check_value(&arguments, key, &value).is_err_and(|found| found == message) {
            return SettingsError::BadValue { origin: Origin::Variable(key.variable()), message };
        }
    }
    SettingsError::Arguments(error)
}

#[expect(clippy::disallowed_methods, reason = "this is the one place")]
fn variable(name: &str) -> Option<String> {
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

/// Remarks on variables that are not settings.
fn unknown_variables() -> Vec<String> {
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    names.filter(|name| name.starts_with("TIDEGATE_")).filter_map(|name| remark(&name)).collect()
}

/// What to say about a variable that looks like one of ours, but for a typing error. Others may share our prefix.
fn remark(name: &str) -> Option<String> {
    let known: Vec<String> = KEYS.iter().map(Key::variable).chain(["TIDEGATE_CONFIG".to_owned()]).collect();
    let near = known.iter().min_by_key(|known| strsim::osa_distance(name, known))?;
    let close = 1..=(name.len() - "TIDEGATE_".len()) / 3;
    let remark = || format!("the variable {name} is not a setting; did you mean {near}?");
    close.contains(&strsim::osa_distance(name, near)).then(remark)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remarks() {
        let check = |name: &str, near: Option<&str>| {
            let expected =
                near.map(|near| format!("the variable {name} is not a setting; did you mean {near}?"));
            assert_eq!(remark(name), expected);
        };
        check("TIDEGATE_MAX_QUEUE", None);
        check("TIDEGATE_MAXQUEUE", Some("TIDEGATE_MAX_QUEUE"));
        check("TIDEGATE_PROT", Some("TIDEGATE_PORT"));
        check("TIDEGATE_HOSTS", Some("TIDEGATE_HOST"));
        check("TIDEGATE_BIN", None);
        check("TIDEGATE_", None);
    }
}
