//! Which model, and under which name.

use std::convert::Infallible;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// A model to be opened: where it is, and the name under which requests ask for it.
///
/// Written `PATH` or `NAME=PATH`. What stands before the first `=` is a name unless it holds a `/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelChoice {
    /// The name; without it, the name of the folder or file.
    pub name: Option<String>,
    /// Folder or file; `chat` is the embedded model, unless something of that name is there.
    pub path: PathBuf,
}

impl ModelChoice {
    /// Whether the embedded model is meant.
    pub fn is_embedded(&self) -> bool {
        self.path == Path::new("chat") && !self.path.exists()
    }
}

impl From<PathBuf> for ModelChoice {
    fn from(path: PathBuf) -> Self {
        Self { name: None, path }
    }
}

impl FromStr for ModelChoice {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text.split_once('=') {
            Some((name, path)) if !name.is_empty() && !name.contains('/') => {
                Self { name: Some(name.to_owned()), path: path.into() }
            }
            _ => Self { name: None, path: text.into() },
        })
    }
}

impl fmt::Display for ModelChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name.iter().try_for_each(|name| write!(f, "{name}="))?;
        self.path.display().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_before_paths() {
        let check = |text: &str, name: Option<&str>, path: &str| {
            let Ok(choice) = text.parse::<ModelChoice>();
            assert_eq!((choice.name.as_deref(), choice.path.as_path()), (name, Path::new(path)), "{text}");
            assert_eq!(choice.to_string(), text);
        };
        check("models/qwen3", None, "models/qwen3");
        check("embed=models/minilm", Some("embed"), "models/minilm");
        check("a=b=c", Some("a"), "b=c");
        check("./x=y", None, "./x=y");
        check("=x", None, "=x");
    }
}
