//! Every example program runs to its end and says something.

use std::path::{Path, PathBuf};
use std::process::Command;

/// `cargo test` builds the examples beside the folder in which this test stands.
fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a running test has a path");
    let profile =
        test.parent().and_then(Path::parent).expect("tests stand in `deps` of their profile's folder");
    profile.join("examples").join(name)
}

#[test]
fn examples_run() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .expect("the examples stand beside the tests")
        .map(|entry| entry.expect("a readable folder").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .map(|path| path.file_stem().expect("a file has a name").to_string_lossy().into_owned())
        .collect();
    names.sort();
    assert!(!names.is_empty());
    for name in names {
        let program = program(&name);
        let output = Command::new(&program).output().unwrap_or_else(|error| {
            panic!("{}: {error}; run `cargo test`, which builds it", program.display())
        });
        let printed = String::from_utf8_lossy(&output.stdout);
        let complained = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{name}: {}\n{printed}{complained}", output.status);
        assert!(!printed.trim().is_empty(), "{name} says nothing");
    }
}
