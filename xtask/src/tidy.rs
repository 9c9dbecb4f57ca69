//! The rules of the house that no compiler checks. Every rule is a function from the tree to its offences.

mod code;
mod links;
mod names;
mod registries;
mod text;
mod trust;

#[cfg(test)]
mod tests;

use std::fmt;
use std::process::ExitCode;

use anyhow::Result;

use crate::tree::{Text, Tree};

/// One place that breaks a rule.
#[derive(Debug, PartialEq, Eq)]
struct Offence {
    path: String,
    /// Counted from 1; 0 where the whole file is meant.
    line: usize,
    /// What is wrong and what would be right.
    message: String,
}

impl Offence {
    fn file(text: &Text, message: impl Into<String>) -> Self {
        Self { path: text.path.clone(), line: 0, message: message.into() }
    }

    /// `line` is counted from 0, as `enumerate` does.
    fn line(text: &Text, line: usize, message: impl Into<String>) -> Self {
        Self { path: text.path.clone(), line: line + 1, message: message.into() }
    }
}

impl fmt::Display for Offence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.path, self.message),
            line => write!(f, "{}:{line}: {}", self.path, self.message),
        }
    }
}

/// A rule: what it finds in the tree.
type Rule = fn(&Tree) -> Vec<Offence>;

const RULES: [Rule; 12] = [
    text::every_source_says_what_it_is,
    text::lengths,
    text::no_stray_spaces,
    text::nothing_unfinished,
    text::no_machine_paths,
    text::architecture_is_short,
    names::files,
    names::types,
    links::resolve,
    registries::are_complete,
    trust::unsafe_is_where_it_belongs,
    trust::the_environment_is_read_in_one_place,
];

fn offences(tree: &Tree) -> Vec<Offence> {
    RULES.iter().flat_map(|rule| rule(tree)).collect()
}

/// Prints every offence; the exit code is 1 if there is one.
pub(crate) fn run() -> Result<ExitCode> {
    let tree = Tree::read()?;
    for text in text::long_sources(&tree) {
        eprintln!("warning: {}: more than {} lines; consider parting it", text.path, text::MANY_LINES);
    }
    let offences = offences(&tree);
    for offence in &offences {
        eprintln!("{offence}");
    }
    println!("{} files, {} offences", tree.texts.len(), offences.len());
    Ok(if offences.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
