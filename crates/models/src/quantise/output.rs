//! A folder that appears whole or not at all.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::ModelError;

/// What happens to a folder that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// It stays, and nothing is written, unless it is empty.
    Keep,
    /// It is replaced if it is a model folder.
    Replace,
}

/// A folder that is being written under a name of its own beside the one it will have.
pub(super) struct Output {
    out: PathBuf,
    unfinished: Unfinished,
}

/// A folder that is removed unless it was renamed.
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

impl Output {
    /// Begins a folder that will be `out`.
    pub(super) fn begin(out: &Path, existing: Existing) -> Result<Self, ModelError> {
        let is_empty = out.is_dir() && fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_none());
        let is_model = out.join("config.json").is_file();
        let is_free = is_empty || (existing == Existing::Replace && is_model);
        if !is_free && out.symlink_metadata().is_ok() {
            return Err(ModelError::InTheWay { path: out.to_owned(), is_model });
        }
        let unfinished = beside(out, "unfinished");
        fs::create_dir_all(&unfinished).map_err(unwritable(&unfinished))?;
        Ok(Self { out: out.to_owned(), unfinished: Unfinished(unfinished) })
    }

    /// Where a file of the folder is while it is being written.
    pub(super) fn path(&self, file: &str) -> PathBuf {
        self.unfinished.0.join(file)
    }

    /// Writes a small file.
    pub(super) fn write(&self, file: &str, content: &[u8]) -> Result<(), ModelError> {
        let path = self.path(file);
        let write = || -> io::Result<()> {
            path.parent().map_or(Ok(()), fs::create_dir_all)?;
            let mut file = File::create(&path)?;
            file.write_all(content)?;
            file.sync_all()
        };
        write().map_err(unwritable(&path))
    }

    /// Puts the folder in its place, durably.
    pub(super) fn finish(self) -> Result<(), ModelError> {
        let Self { out, unfinished } = self;
        let place = || -> io::Result<()> {
            File::open(&unfinished.0)?.sync_all()?;
            let old = Unfinished(beside(&out, "replaced"));
            if out.exists() {
                fs::rename(&out, &old.0)?;
            }
            if let Err(error) = fs::rename(&unfinished.0, &out) {
                fs::rename(&old.0, &out).ok();
                return Err(error);
            }
            let parent = out.parent().filter(|parent| !parent.as_os_str().is_empty());
            File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
        };
        place().map_err(unwritable(&out))
    }
}

/// A hidden name in the same folder, so that renaming moves no bytes.
fn beside(out: &Path, word: &str) -> PathBuf {
    let name = out.file_name().unwrap_or_default().to_string_lossy();
    out.with_file_name(format!(".{name}.{word}-{}", std::process::id()))
}

/// The error for a path that cannot be written.
pub(super) fn unwritable(path: &Path) -> impl Fn(io::Error) -> ModelError {
    let path = path.to_owned();
    move |source| ModelError::Unwritable { path: path.clone(), source }
}
