//! What counts when flag, variable, file and default disagree, seen from the outside.

use serde_json::Value;

use crate::program::{Case, Folder, check, check_in};

#[test]
fn flag_over_variable_over_file_over_default() {
    let check = |file: &str, variables: &[(&str, &str)], flags: &[&str], value: u64, origin: &str| {
        let folder = Folder::new().with("tidegate.toml", file);
        let arguments: Vec<_> = ["config", "show", "--json"].iter().chain(flags).copied().collect();
        let case = Case { arguments: &arguments, variables, stdout: &["queue.max"], ..Case::default() };
        let shown: Value = serde_json::from_str(&check_in(&folder, &case)).unwrap();
        assert_eq!(shown["queue.max"]["value"], value, "{shown}");
        assert_eq!(shown["queue.max"]["origin"], origin, "{shown}");
    };
    let (file, variable, flag) = ("[queue]\nmax = 3", [("TIDEGATE_MAX_QUEUE", "2")], ["--max-queue", "1"]);
    check("", &[], &[], 512, "default");
    check(file, &[], &[], 3, "file");
    check(file, &variable, &[], 2, "environment");
    check(file, &variable, &flag, 1, "flag");
}

#[test]
fn named_file_replaces_the_one_beside() {
    let folder =
        Folder::new().with("tidegate.toml", "[server]\nport = 1").with("other.toml", "[queue]\nmax = 4");
    let shown = |arguments: &[&str], variables: &[(&str, &str)], parts: &[&str]| {
        check_in(&folder, &Case { arguments, variables, stdout: parts, ..Case::default() })
    };
    let beside = shown(&["config", "show"], &[], &["port = 1\n", "max = 512\n"]);
    let named = shown(&["config", "show", "--config", "other.toml"], &[], &["port = 8080\n", "max = 4\n"]);
    let variable = shown(&["config", "show"], &[("TIDEGATE_CONFIG", "other.toml")], &["max = 4\n"]);
    assert_ne!(beside, named);
    assert_eq!(named, variable);
}

#[test]
fn shown_configuration_is_a_configuration() {
    let variables =
        [("TIDEGATE_KV_MEMORY", "64MiB"), ("TIDEGATE_API_KEY", "sesame"), ("TIDEGATE_LOG", "a=\"b\"")];
    let arguments = ["config", "show", "--origin", "--port", "81"];
    let stdout =
        ["kv = \"64MiB\"", "# TIDEGATE_KV_MEMORY", "port = 81", "# --port", "api_key is set to 1 value"];
    let shown =
        check(&Case { arguments: &arguments, variables: &variables, stdout: &stdout, ..Case::default() });
    assert!(!shown.contains("sesame"), "{shown}");
    let again = Folder::new().with("tidegate.toml", &shown);
    let case =
        Case { arguments: &["config", "show"], stdout: &["kv = \"64MiB\"", "port = 81"], ..Case::default() };
    check_in(&again, &case);
}

#[test]
fn wrong_configuration_exits_with_2() {
    let check = |file: &str, variables: &[(&str, &str)], stderr: &[&str]| {
        let folder = Folder::new().with("tidegate.toml", file);
        let arguments = ["run", "hi"];
        check_in(&folder, &Case { arguments: &arguments, variables, exit: 2, stderr, ..Case::default() });
    };
    check(
        "[queue]\nmaxx = 1",
        &[],
        &["tidegate.toml: 'queue.maxx' is not a setting; did you mean 'queue.max'?"],
    );
    check("[queue]\nmax = 'a'", &[], &["tidegate.toml: queue.max: invalid value 'a'"]);
    check("", &[("TIDEGATE_THREADS", "no")], &["TIDEGATE_THREADS: invalid value 'no'"]);
    check("", &[("TIDEGATE_CONFIG", "gone.toml")], &["cannot read the configuration file gone.toml"]);
}

#[test]
fn unknown_variables_are_remarked_on() {
    let case = Case {
        arguments: &["config", "show"],
        variables: &[("TIDEGATE_MAXQUEUE", "1")],
        stdout: &["max = 512\n"],
        stderr: &[
            "warning: the variable TIDEGATE_MAXQUEUE is not a setting; did you mean TIDEGATE_MAX_QUEUE?",
        ],
        ..Case::default()
    };
    check(&case);
}
