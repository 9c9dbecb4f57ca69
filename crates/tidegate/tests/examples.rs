//! The examples are programs that run: they say what they show by asserting it.

#[path = "command/opencl.rs"]
mod opencl;

use std::path::{Path, PathBuf};
use std::process::Command;

/// `cargo test` builds the examples beside the folder in which this test stands.
fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own path");
    let profile = test.parent().and_then(Path::parent).expect("tests stand two folders below the profile");
    profile.join("examples").join(format!("{name}{}", std::env::consts::EXE_SUFFIX))
}

#[test]
fn user_model() {
    let output = Command::new(example("user_model")).output().expect("cargo has built the example");
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("the empty text: there is nothing to read in \" \""), "{said}");
    assert!(said.contains("3 requests in"), "{said}");
}

#[test]
fn offload() {
    let run = |arguments: &[&str]| {
        let output = Command::new(example("offload")).args(arguments).output();
        let output = output.expect("cargo has built the example");
        assert!(output.status.success(), "{output:?}");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.contains("nothing is offloaded under the name 'layer.99.weight'"), "{said}");
        assert!(said.contains("32 layers of 1048576 bytes through 8388608 of memory"), "{said}");
        said
    };
    assert!(!run(&[]).contains("device "));
    if opencl::is_there() {
        let said = run(&["0"]);
        assert!(said.contains("\ndevice ") && said.contains(" of 8388608 in use"), "{said}");
    }
}
