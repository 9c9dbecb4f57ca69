//! Where the compiler is trusted less, and where the outside is trusted at all.

use super::Offence;
use super::code::{code_of, words_of_code};
use crate::tree::{Text, Tree};

/// What may use `unsafe`: instructions, threads, mappings, memory, and tensors of other libraries. A place is a file or a
/// folder.
const UNSAFE: [&str; 9] = [
    "crates/memory/src",
    "crates/tensor/src/cpu.rs",
    "crates/tensor/src/cpu",
    "crates/tensor/src/isa",
    "crates/tensor/src/pool.rs",
    "crates/tensor/src/pool",
    "crates/tensor/src/stored.rs",
    "crates/tensor/src/stored",
    "python/src/dlpack.rs",
];

/// What may read the environment: the settings. Tests may look for the switch that rewrites what they expect.
const ENVIRONMENT: [&str; 2] = ["crates/tidegate/src/settings.rs", "crates/tidegate/src/settings"];
const SWITCH: &str = "UPDATE_EXPECT";

fn is_in(text: &Text, places: &[&str]) -> bool {
    let is_at = |place: &str| {
        text.path.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    places.iter().any(|place| is_at(place))
}

/// `unsafe` stays in few places. Tests and examples of the crates above them may need an allocator or a processor.
pub(super) fn unsafe_is_where_it_belongs(tree: &Tree) -> Vec<Offence> {
    let is_bound = |text: &&Text| {
        let is_outside =
            text.path.starts_with("crates/tensor/tests/") || text.path.starts_with("crates/tensor/examples/");
        !is_in(text, &UNSAFE) && !is_outside
    };
    let check = |text: &Text| -> Vec<Offence> {
        let found = words_of_code(&text.content).filter(|(_, word)| word == "unsafe");
        found
            .map(|(line, _)| Offence::line(text, line, format!("`unsafe` belongs in {}", UNSAFE.join(", "))))
            .collect()
    };
    tree.with_extension("rs").filter(is_bound).flat_map(check).collect()
}

/// Configuration is read in one place.
pub(super) fn the_environment_is_read_in_one_place(tree: &Tree) -> Vec<Offence> {
    const READS: [&str; 4] = ["env::var(", "env::var_os(", "env::vars(", "env::vars_os("];
    let is_bound = |text: &&Text| !is_in(text, &ENVIRONMENT) && !text.path.contains("/tests/");
    let check = |text: &Text| -> Vec<Offence> {
        let code = code_of(&text.content);
        let lines = code.lines().zip(text.content.lines()).enumerate();
        lines
            .filter(|(_, (code, line))| {
                READS.iter().any(|read| code.contains(read)) && !line.contains(SWITCH)
            })
            .map(|(number, _)| {
                Offence::line(text, number, format!("settings are read in {}", ENVIRONMENT[0]))
            })
            .collect()
    };
    tree.with_extension("rs").filter(is_bound).flat_map(check).collect()
}
