//! A file in a folder of implementations stands in the table of that folder.

use super::Offence;
use super::code::code_of;
use super::text::contains_word;
use crate::tree::{Text, Tree};

/// Folders whose every file is one implementation of a seam; the table is the file named like the folder.
const FOLDERS: [&str; 4] = [
    "crates/flow/src/queue/policy",
    "crates/memory/src/eviction",
    "crates/models/src/families",
    "crates/server/src/endpoints",
];

/// No implementation is forgotten.
pub(super) fn are_complete(tree: &Tree) -> Vec<Offence> {
    FOLDERS.iter().flat_map(|folder| check(tree, folder)).collect()
}

fn check(tree: &Tree, folder: &str) -> Vec<Offence> {
    let Some(table) = tree.text(&format!("{folder}.rs")) else {
        let has_files = tree.paths.iter().any(|path| path.starts_with(&format!("{folder}/")));
        let message = || "the table of this folder is missing".to_owned();
        return has_files
            .then(|| Offence { path: folder.to_owned(), line: 0, message: message() })
            .into_iter()
            .collect();
    };
    let code = code_of(&table.content);
    let is_member = |text: &&Text| {
        let name = text.path.strip_prefix(folder).and_then(|rest| rest.strip_prefix('/'));
        name.is_some_and(|name| !name.contains('/')) && !text.is_test()
    };
    let missing = tree.with_extension("rs").filter(is_member).filter_map(|text| {
        let name = text.stem();
        let is_declared = contains_word(&code, &format!("mod {name};"));
        let is_listed = contains_constant(&code, name);
        let wanted = match (is_declared, is_listed) {
            (true, true) => return None,
            (false, _) => format!("`mod {name};`"),
            (true, false) => format!("the constant of `{name}`"),
        };
        Some(Offence::file(text, format!("{} lacks {wanted}", table.path)))
    });
    missing.collect()
}

/// Whether the code uses a constant of the module: `name::CONSTANT`.
fn contains_constant(code: &str, name: &str) -> bool {
    let path = format!("{name}::");
    code.match_indices(&path).any(|(at, _)| {
        let is_whole = !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
        is_whole && code[at + path.len()..].starts_with(|c: char| c.is_ascii_uppercase())
    })
}
