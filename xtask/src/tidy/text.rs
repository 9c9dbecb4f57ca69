//! Rules about the text of files.

use super::Offence;
use crate::tree::{Text, Tree};

/// More lines than this are a warning.
pub(super) const MANY_LINES: usize = 400;
/// More lines than this are an offence.
const TOO_MANY_LINES: usize = 600;

/// Every Rust file begins with `//!`.
pub(super) fn every_source_says_what_it_is(tree: &Tree) -> Vec<Offence> {
    let silent = tree.with_extension("rs").filter(|text| !text.content.starts_with("//!"));
    silent.map(|text| Offence::file(text, "begin the file with `//!` and what it is")).collect()
}

/// No source is too long to be read in one go.
pub(super) fn lengths(tree: &Tree) -> Vec<Offence> {
    let sources = tree.with_extension("rs").chain(tree.with_extension("py"));
    let long = sources.filter(|text| text.content.lines().count() > TOO_MANY_LINES);
    long.map(|text| Offence::file(text, format!("more than {TOO_MANY_LINES} lines; part it"))).collect()
}

/// Sources that are longer than they should be.
pub(super) fn long_sources(tree: &Tree) -> impl Iterator<Item = &Text> {
    tree.with_extension("rs").filter(|text| text.content.lines().count() > MANY_LINES)
}

/// Lines end without spaces, files with one line feed. Recorded files under `test_data` are as they were recorded.
pub(super) fn no_stray_spaces(tree: &Tree) -> Vec<Offence> {
    const EXTENSIONS: [&str; 6] = ["rs", "py", "md", "toml", "sh", "yml"];
    let written = |text: &&Text| EXTENSIONS.contains(&text.extension()) && !text.path.contains("/test_data/");
    let check = |text: &Text| {
        let lines = text.content.split('\n').enumerate();
        let mut found: Vec<Offence> = lines
            .filter(|(_, line)| line.ends_with([' ', '\t', '\r']))
            .map(|(number, _)| Offence::line(text, number, "the line ends with a space"))
            .collect();
        if !text.content.is_empty() && (!text.content.ends_with('\n') || text.content.ends_with("\n\n")) {
            found.push(Offence::file(text, "end the file with one line feed"));
        }
        found
    };
    tree.texts.iter().filter(written).flat_map(check).collect()
}

/// What people write when they leave something for later. Each is spelt in two parts, so that this file has none.
const UNFINISHED: [&str; 6] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
    concat!("to", "do!"),
    concat!("unimple", "mented!"),
    concat!("#[ig", "nore"),
];

/// Nothing is left for later, and no test is switched off.
pub(super) fn nothing_unfinished(tree: &Tree) -> Vec<Offence> {
    find_words(tree, &["rs", "py", "md", "toml"], &UNFINISHED, "is unfinished; finish it or take it out")
}

/// Nothing depends on where one machine keeps its files.
pub(super) fn no_machine_paths(tree: &Tree) -> Vec<Offence> {
    const PLACES: [&str; 3] = [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/Us", "ers/")];
    find_words(tree, &["rs", "py", "md", "toml", "sh", "json"], &PLACES, "is a place on one machine")
}

fn find_words(tree: &Tree, extensions: &[&str], words: &[&str], what: &str) -> Vec<Offence> {
    let check = |text: &Text| -> Vec<Offence> {
        let lines = text.content.lines().enumerate();
        lines
            .flat_map(|(number, line)| {
                let found = words.iter().filter(move |word| contains_word(line, word));
                found.map(move |word| (number, word))
            })
            .map(|(number, word)| Offence::line(text, number, format!("`{word}` {what}")))
            .collect()
    };
    let texts = tree.texts.iter().filter(|text| extensions.contains(&text.extension()));
    texts.filter(|text| !text.path.contains("/test_data/")).flat_map(check).collect()
}

/// Whether `line` has `word`, and not as a part of a longer one.
pub(super) fn contains_word(line: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        let begins = !word.starts_with(is_part) || !before.is_some_and(is_part);
        let ends = !word.ends_with(is_part) || !after.is_some_and(is_part);
        begins && ends
    })
}

/// ARCHITECTURE.md stays a map.
pub(super) fn architecture_is_short(tree: &Tree) -> Vec<Offence> {
    const LONGEST: usize = 300;
    let long = tree.text("ARCHITECTURE.md").filter(|text| text.content.lines().count() > LONGEST);
    long.map(|text| Offence::file(text, format!("more than {LONGEST} lines; say less"))).into_iter().collect()
}
