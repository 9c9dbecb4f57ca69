//! What the pages say is so: the tests they name exist, and a running server has what they list.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::program::Folder;
use crate::serve::Server;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn page(name: &str) -> String {
    fs::read_to_string(root().join("docs").join(name)).unwrap()
}

/// What stands between backticks.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

const BOSS: &str = "authorization: Bearer boss\r\n";

/// The part of a page below a heading.
fn part<'a>(page: &'a str, heading: &str) -> &'a str {
    let rest = page.split(&format!("\n## {heading}\n")).nth(1).unwrap();
    rest.split("\n## ").next().unwrap()
}

/// The names of all functions in the Rust and Python sources below a folder.
fn functions(folder: &Path, names: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.extension().and_then(|extension| extension.to_str()) {
            _ if path.is_dir() => functions(&path, names),
            Some("rs" | "py") => {
                let text = fs::read_to_string(&path).unwrap();
                let word =
                    |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                let after = |keyword| text.split(keyword).skip(1).map(word).collect::<Vec<String>>();
                names.extend([after("fn "), after("def ")].concat());
            }
            _ => {}
        }
    }
}

#[test]
fn tests_named_by_capabilities_exist() {
    let mut known = BTreeSet::new();
    for folder in ["crates", "python", "xtask", "tools"] {
        functions(&root().join(folder), &mut known);
    }
    let page = page("capabilities.md");
    let rows = page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| row"));
    let mut count = 0;
    for row in rows {
        let tests: Vec<&str> = code(row.trim_end_matches('|').rsplit(" | ").next().unwrap()).collect();
        assert!(!tests.is_empty(), "no test is named: {row}");
        for test in tests {
            assert!(known.contains(test), "there is no test called {test}: {row}");
        }
        count += 1;
    }
    assert!(count > 30, "only {count} rows were found");
}

#[test]
fn server_has_what_the_page_lists() {
    let page = page("http.md");
    let server = Server::start(&Folder::new(), &["--admin-key", "boss", "--metrics-aliases", "vllm"]);
    for endpoint in code(part(&page, "Endpoints")).filter(|code| code.contains(" /")) {
        let (method, path) = endpoint.split_once(' ').unwrap();
        let (status, answer) = server.ask(method, &path.replace("{id}", "tidegate-tiny"), BOSS, "");
        assert!(status == 200 || (method != "GET" && status == 400), "{endpoint}: {status} {answer}");
    }

    let refused: Vec<&str> = code(part(&page, "Refused parameters").split("\n\n").nth(1).unwrap()).collect();
    assert!(refused.len() > 20, "only {refused:?} were found");
    for parameter in refused {
        let path = if parameter == "suffix" { "/v1/completions" } else { "/v1/chat/completions" };
        let body = format!(
            r#"{{"messages":[{{"role":"user","content":"x"}}],"prompt":"x","{parameter}":{}}}"#,
            asking(parameter)
        );
        let (status, answer) = server.ask("POST", path, "", &body);
        assert!(status == 400 && answer.contains("unsupported_parameter"), "{parameter}: {status} {answer}");
    }

    let (_, metrics) = server.ask("GET", "/metrics", "", "");
    let helped = metrics.lines().filter_map(|line| line.strip_prefix("# HELP ")?.split(' ').next());
    let exported: BTreeSet<&str> = helped.collect();
    let aliases = code(part(&page, "Under the names of vLLM")).filter(|name| name.starts_with("vllm:"));
    let ours = code(part(&page, "Metrics")).filter(|name| name.starts_with("tidegate_"));
    let listed: BTreeSet<&str> = ours.chain(aliases).collect();
    // What a system does not tell of itself is not exported there.
    let is_told =
        |name: &&&str| !["tidegate_process_", "tidegate_memory_"].iter().any(|own| name.starts_with(own));
    let missing: Vec<_> = listed.difference(&exported).filter(is_told).collect();
    let unlisted: Vec<_> = exported.difference(&listed).collect();
    assert!(missing.is_empty() && unlisted.is_empty(), "missing: {missing:?}; unlisted: {unlisted:?}");
}

/// A value that asks for something.
fn asking(parameter: &str) -> &'static str {
    match parameter {
        "best_of" | "prompt_logprobs" | "mirostat" | "truncate_prompt_tokens" => "7",
        "typical_p" => "0.5",
        "use_beam_search" | "continue_final_message" => "true",
        "tools" | "functions" | "logits_processors" | "bad_words" => r#"[{"type":"function"}]"#,
        "allowed_token_ids" => "[1]",
        "tool_choice" => r#""required""#,
        "modalities" => r#"["text","audio"]"#,
        "response_format" => r#"{"type":"json_object"}"#,
        _ => r#""x""#,
    }
}
