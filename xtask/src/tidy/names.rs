//! Names that say nothing.

use super::Offence;
use super::code::words_of_code;
use crate::tree::{Text, Tree};

const EMPTY: [&str; 12] = [
    "util", "utils", "common", "core", "base", "types", "misc", "helper", "helpers", "manager", "handler",
    "handlers",
];

/// Ends of names that say that something is done, and not what.
const SUFFIXES: [&str; 6] = ["Manager", "Handler", "Helper", "Processor", "Wrapper", "Mixin"];

/// Names of the Python package that its users know from elsewhere.
const GIVEN: [&str; 2] = ["StreamProcessor", "AsyncMultimodalProcessor"];

/// No file and no folder has a name that says nothing.
pub(super) fn files(tree: &Tree) -> Vec<Offence> {
    let is_empty_name = |name: &str| {
        let lower = name.to_lowercase();
        let ends = |suffix: &str| lower.ends_with(&format!("_{}", suffix.to_lowercase()));
        EMPTY.contains(&lower.as_str()) || SUFFIXES.iter().any(|suffix| ends(suffix))
    };
    let named = |path: &&String| {
        let name = path.rsplit_once('/').map_or(path.as_str(), |(_, name)| name);
        is_empty_name(name.split('.').next().unwrap_or(name))
    };
    let message = || "the name says nothing; name what is in it".to_owned();
    tree.paths
        .iter()
        .filter(named)
        .map(|path| Offence { path: path.clone(), line: 0, message: message() })
        .collect()
}

/// No type has a name that says nothing.
pub(super) fn types(tree: &Tree) -> Vec<Offence> {
    const DEFINING: [&str; 6] = ["struct", "enum", "trait", "type", "union", "class"];
    let check = |text: &Text| -> Vec<Offence> {
        let mut found = Vec::new();
        let mut before = String::new();
        for (line, word) in words_of_code(&text.content) {
            let says_nothing =
                SUFFIXES.iter().any(|suffix| word.ends_with(suffix)) && !GIVEN.contains(&word.as_str());
            if DEFINING.contains(&before.as_str()) && says_nothing {
                found.push(Offence::line(
                    text,
                    line,
                    format!("`{word}`: name what it is, not that it does things"),
                ));
            }
            before = word;
        }
        found
    };
    tree.with_extension("rs").chain(tree.with_extension("py")).flat_map(check).collect()
}
