//! The text files of the repository.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Folders that hold nothing we wrote, wherever they are.
const SKIPPED: [&str; 3] = ["target", "__pycache__", "node_modules"];
/// Checkpoints that people put beside the sources.
const CHECKPOINTS: &str = "models";
/// Hidden folders that hold something we wrote.
const HIDDEN: [&str; 3] = [".cargo", ".ci", ".github"];

/// One text file; the path is relative to the root and has forward slashes.
#[derive(Debug)]
pub(crate) struct Text {
    pub(crate) path: String,
    pub(crate) content: String,
}

impl Text {
    /// The part behind the last dot of the file's name.
    pub(crate) fn extension(&self) -> &str {
        self.name().rsplit_once('.').map_or("", |(_, extension)| extension)
    }

    /// The file's name.
    pub(crate) fn name(&self) -> &str {
        self.path.rsplit_once('/').map_or(self.path.as_str(), |(_, name)| name)
    }

    /// The file's name without its extension.
    pub(crate) fn stem(&self) -> &str {
        self.name().rsplit_once('.').map_or(self.name(), |(stem, _)| stem)
    }

    /// Whether it is one of a crate's test files.
    pub(crate) fn is_test(&self) -> bool {
        self.path.contains("/tests/") || self.name() == "tests.rs" || self.name().starts_with("test_")
    }
}

/// All that is checked.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    /// Files that are text, sorted by path.
    pub(crate) texts: Vec<Text>,
    /// Every file and folder, text or not, sorted.
    pub(crate) paths: Vec<String>,
}

impl Tree {
    /// Reads the repository.
    pub(crate) fn read() -> Result<Self> {
        let mut tree = Self::default();
        tree.visit(&root(), "")?;
        tree.paths.sort();
        tree.texts.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(tree)
    }

    /// The files with that extension.
    pub(crate) fn with_extension(&self, extension: &str) -> impl Iterator<Item = &Text> {
        self.texts.iter().filter(move |text| text.extension() == extension)
    }

    /// The text at that path.
    pub(crate) fn text(&self, path: &str) -> Option<&Text> {
        self.texts.iter().find(|text| text.path == path)
    }

    fn visit(&mut self, folder: &Path, prefix: &str) -> Result<()> {
        let listing = fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
        for entry in listing {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = format!("{prefix}{name}");
            if entry.file_type()?.is_dir() {
                let is_ours = if name.starts_with('.') {
                    HIDDEN.contains(&name.as_str())
                } else {
                    !SKIPPED.contains(&name.as_str()) && path != CHECKPOINTS
                };
                if is_ours {
                    self.visit(&entry.path(), &format!("{path}/"))?;
                    self.paths.push(path);
                }
            } else {
                if let Ok(content) = String::from_utf8(fs::read(entry.path())?) {
                    self.texts.push(Text { path: path.clone(), content });
                }
                self.paths.push(path);
            }
        }
        Ok(())
    }
}

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask).to_owned()
}
