//! Which crate may use which: a crate depends on strictly lower floors, and only on those that it is allowed to know.

use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::tree::root;

/// One crate of the house.
struct Room {
    package: &'static str,
    floor: u8,
    /// The crates that it may know; a crate that is not here knows nobody.
    may_use: &'static [&'static str],
}

const fn room(package: &'static str, floor: u8, may_use: &'static [&'static str]) -> Room {
    Room { package, floor, may_use }
}

const HOUSE: [Room; 10] = [
    room("tidegate-flow", 0, &[]),
    room("tidegate-images", 0, &[]),
    room("tidegate-memory", 0, &[]),
    room("tidegate-protocol", 0, &[]),
    room("tidegate-tensor", 1, &["tidegate-memory"]),
    room("tidegate-models", 2, &["tidegate-images", "tidegate-tensor"]),
    room("tidegate-server", 2, &["tidegate-flow", "tidegate-images", "tidegate-protocol"]),
    room(
        "tidegate-engine",
        3,
        &[
            "tidegate-flow",
            "tidegate-images",
            "tidegate-memory",
            "tidegate-protocol",
            "tidegate-tensor",
            "tidegate-models",
        ],
    ),
    room(
        "tidegate",
        4,
        &[
            "tidegate-flow",
            "tidegate-images",
            "tidegate-memory",
            "tidegate-protocol",
            "tidegate-tensor",
            "tidegate-models",
            "tidegate-server",
            "tidegate-engine",
        ],
    ),
    room("tidegate-python", 5, &["tidegate-flow", "tidegate-memory", "tidegate"]),
];

/// Stands outside of the house and may know everyone.
const OUTSIDE: &str = "xtask";

/// Prints every offence; the exit code is 1 if there is one.
pub(crate) fn run() -> Result<ExitCode> {
    let offences = offences(&metadata(&root())?)?;
    for offence in &offences {
        eprintln!("{offence}");
    }
    println!("{} crates, {} offences", HOUSE.len(), offences.len());
    Ok(if offences.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What cargo says about the workspace, dependencies of dependencies left out.
pub(crate) fn metadata(root: &Path) -> Result<Value> {
    let mut command = Command::new("cargo");
    command.args(["metadata", "--no-deps", "--format-version", "1"]).current_dir(root).stdin(Stdio::null());
    let output = command.output().context("cannot run cargo metadata")?;
    ensure!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).context("cargo metadata printed no JSON")
}

/// Dependencies of every kind that the house does not allow.
fn offences(metadata: &Value) -> Result<Vec<String>> {
    let packages = metadata["packages"].as_array().context("cargo metadata lists no packages")?;
    let names: Vec<&str> = packages.iter().filter_map(|package| package["name"].as_str()).collect();
    let mut found = Vec::new();
    for (package, name) in packages.iter().zip(&names) {
        let dependencies = package["dependencies"].as_array().map(Vec::as_slice).unwrap_or_default();
        let used = dependencies.iter().filter_map(|dependency| dependency["name"].as_str());
        for other in used.filter(|other| names.contains(other)) {
            found.extend(objection(name, other));
        }
        if *name != OUTSIDE && !HOUSE.iter().any(|room| room.package == *name) {
            found.push(format!("{name} has no floor: give it one in xtask/src/floors.rs"));
        }
    }
    Ok(found)
}

fn objection(user: &str, used: &str) -> Option<String> {
    let find = |name: &str| HOUSE.iter().find(|room| room.package == name);
    let Some((user_room, used_room)) = find(user).zip(find(used)) else {
        return (used == OUTSIDE).then(|| format!("{user} depends on {OUTSIDE}"));
    };
    if used_room.floor >= user_room.floor {
        let (low, high) = (user_room.floor, used_room.floor);
        Some(format!(
            "{user} on floor {low} depends on {used} on floor {high}; only lower floors may be used"
        ))
    } else if !user_room.may_use.contains(&used) {
        Some(format!("{user} depends on {used}, which it must not know; it may use {:?}", user_room.may_use))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_house_stands() {
        let offences = offences(&metadata(&root()).unwrap()).unwrap();
        assert!(offences.is_empty(), "{}", offences.join("\n"));
    }

    #[test]
    fn what_may_be_used_is_on_lower_floors() {
        for room in &HOUSE {
            for used in room.may_use {
                assert_eq!(objection(room.package, used), None);
            }
        }
    }

    #[test]
    fn wrong_edges_are_found() {
        let package = |name: &str, uses: &[&str]| {
            let dependencies: Vec<Value> = uses.iter().map(|name| json!({ "name": name })).collect();
            json!({ "name": name, "dependencies": dependencies })
        };
        let check = |user: &str, used: &str, expected: &str| {
            let metadata = json!({ "packages": [package(user, &[used, "serde"]), package(used, &[])] });
            let found = offences(&metadata).unwrap().join("\n");
            assert!(found.contains(expected), "{user} -> {used}: '{found}' lacks '{expected}'");
            assert_eq!(found.is_empty(), expected.is_empty(), "{found}");
        };
        check("tidegate-flow", "tidegate-protocol", "floor 0 depends on tidegate-protocol on floor 0");
        check("tidegate-tensor", "tidegate-models", "only lower floors");
        check("tidegate-server", "tidegate-tensor", "which it must not know");
        check("tidegate-novelty", "tidegate-flow", "tidegate-novelty has no floor");
        check("tidegate-engine", "xtask", "depends on xtask");
        check("tidegate-engine", "tidegate-flow", "");
        check("xtask", "tidegate-engine", "");
    }
}
