//! Folders on disk: plain, cached, missing, absurd.

use std::path::{Path, PathBuf};
use std::{fs, process};

use super::*;

/// A folder that is removed at the end of the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("tidegate-models-{}-{name}", process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path.canonicalize().unwrap())
    }

    fn write(&self, file: &str, content: &str) -> PathBuf {
        let path = self.0.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

fn config_of(path: &Path) -> Result<String, String> {
    let repository = Repository::folder(path).map_err(|error| error.to_string())?;
    let bytes = repository.read("config.json").map_err(|error| error.to_string())?;
    Ok(format!("{} of {}", String::from_utf8_lossy(&bytes), repository.name()))
}

#[test]
fn a_plain_folder_is_itself() {
    let scratch = Scratch::new("plain");
    scratch.write("my-model/config.json", "{}");
    assert_eq!(config_of(&scratch.0.join("my-model")).unwrap(), "{} of my-model");

    let missing = config_of(&scratch.0).unwrap_err();
    assert!(missing.contains("has no config.json; a model folder needs"), "{missing}");
    let absent = config_of(&scratch.0.join("absent")).unwrap_err();
    assert!(absent.contains("is not a folder; expected a model folder"), "{absent}");
}

#[test]
fn a_cache_entry_is_its_current_snapshot() {
    let scratch = Scratch::new("cache");
    let entry = scratch.0.join("models--org--tiny");
    scratch.write("models--org--tiny/snapshots/aaa/config.json", "first");
    assert_eq!(config_of(&entry).unwrap(), "first of org/tiny");
    assert_eq!(config_of(&entry.join("snapshots/aaa")).unwrap(), "first of org/tiny");

    scratch.write("models--org--tiny/snapshots/bbb/config.json", "second");
    let ambiguous = config_of(&entry).unwrap_err();
    assert!(
        ambiguous.ends_with("holds 2 snapshots and no refs/main; name one of them: aaa, bbb"),
        "{ambiguous}"
    );

    scratch.write("models--org--tiny/refs/main", "bbb\n");
    assert_eq!(config_of(&entry).unwrap(), "second of org/tiny");

    scratch.write("models--org--tiny/refs/main", "../snapshots/bbb");
    assert!(config_of(&entry).is_err());
}

#[test]
fn a_text_file_of_absurd_length_is_not_read() {
    let scratch = Scratch::new("absurd");
    let path = scratch.write("config.json", "{}");
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(1 << 40).unwrap();
    let error = config_of(&scratch.0).unwrap_err();
    let expected =
        "has 1099511627776 bytes, but at most 268435456 were expected; it is not what its name says";
    assert!(error.ends_with(expected), "{error}");
}

#[test]
fn plain_names_stay_in_their_folder() {
    for (name, plain) in [
        ("model-00001-of-00002.safetensors", true),
        ("..", false),
        (".", false),
        ("", false),
        ("/a", false),
        ("a/", false),
        ("a/b", false),
        ("a\\b", false),
        ("a\0", false),
    ] {
        assert_eq!(is_plain_name(name), plain, "{name:?}");
    }
}
