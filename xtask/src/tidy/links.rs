//! Links in Markdown files lead somewhere.

use std::collections::BTreeSet;

use super::Offence;
use crate::tree::{Text, Tree};

/// Every relative link names a file or folder that exists, and every anchor a heading.
pub(super) fn resolve(tree: &Tree) -> Vec<Offence> {
    let check = |text: &Text| -> Vec<Offence> {
        let broken = links(&text.content).into_iter().filter_map(|(number, target)| {
            let reason = objection(tree, text, &target)?;
            Some(Offence::line(text, number, format!("the link to `{target}` is broken: {reason}")))
        });
        broken.collect()
    };
    tree.with_extension("md").flat_map(check).collect()
}

fn objection(tree: &Tree, text: &Text, target: &str) -> Option<String> {
    if target.contains("://") || target.starts_with("mailto:") {
        return None;
    }
    let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
    let path = if path.is_empty() { text.path.clone() } else { joined(&text.path, path)? };
    if !path.is_empty() && !tree.paths.contains(&path) {
        return Some(format!("there is no {path}"));
    }
    let page = tree.text(&path)?;
    let is_missing =
        !anchor.is_empty() && page.extension() == "md" && !anchors(&page.content).contains(anchor);
    is_missing.then(|| format!("{path} has no such heading"))
}

/// `target` seen from the folder of `from`.
fn joined(from: &str, target: &str) -> Option<String> {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in target.trim_end_matches('/').split('/') {
        match part {
            "." | "" => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// The targets of `[…](target)` outside of code, each with its line.
fn links(content: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in prose(content) {
        // Every second piece between backticks is code.
        let text: String = line.split('`').step_by(2).collect::<Vec<_>>().join("`");
        for (at, _) in text.match_indices("](") {
            if let Some(end) = text[at + 2..].find(')') {
                let target = &text[at + 2..at + 2 + end];
                found.push((number, target.split_whitespace().next().unwrap_or_default().to_owned()));
            }
        }
    }
    found
}

/// Names under which the headings can be linked to: lower case, punctuation gone, spaces as hyphens.
fn anchors(content: &str) -> BTreeSet<String> {
    let headings = prose(content).filter(|(_, line)| line.starts_with('#'));
    let name = |heading: &str| {
        let words = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = words.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(|(_, line)| name(line)).collect()
}

/// The lines outside of fenced code.
fn prose(content: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut is_code = false;
    content.lines().enumerate().filter(move |(_, line)| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    })
}
