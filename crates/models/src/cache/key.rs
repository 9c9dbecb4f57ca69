//! What the bytes of packed weights follow from, as one digest.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use sha2::{Digest, Sha256};
use tensor::packed::archive::LAYOUT_VERSION;

/// Identifies packed weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    label: String,
    digest: String,
}

impl Key {
    /// The key of weights that are made of `files` as `how` says; `None` where a file is none on a disk. `label` is what
    /// people recognise the model by.
    pub(crate) fn new(label: &str, files: &[&Path], how: &str) -> Option<Self> {
        let mut said = format!("layout {LAYOUT_VERSION}\nprogram {}\n{how}\n", env!("CARGO_PKG_VERSION"));
        for file in files {
            writeln!(said, "{}", identity(file)?).ok()?;
        }
        let mut digest = String::new();
        for byte in Sha256::digest(said) {
            write!(digest, "{byte:02x}").ok()?;
        }
        let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
        let label = label.chars().take(100).map(plain).collect();
        Some(Self { label, digest })
    }

    /// All of the digest, in hexadecimal digits.
    pub(crate) fn digest(&self) -> &str {
        &self.digest
    }

    /// The name of a file for it, without ending.
    pub(crate) fn name(&self) -> String {
        // 64 bits tell the few files of a folder apart; the whole digest is in the file.
        format!("{}-{}", self.label, &self.digest[..16])
    }
}

/// What changes whenever the content of a file may have changed: every write sets the times, the second of which no
/// program can set at will, and a replacement has another number.
#[cfg(unix)]
fn identity(file: &Path) -> Option<String> {
    use std::os::unix::fs::MetadataExt;
    let found = fs::metadata(file).ok()?;
    let times = [found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec()];
    let name = file.file_name()?.to_string_lossy();
    Some(format!("{name} {} {} {} {times:?}", found.dev(), found.ino(), found.len()))
}

#[cfg(not(unix))]
fn identity(_file: &Path) -> Option<String> {
    None
}
