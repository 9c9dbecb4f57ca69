//! `tidegate run` and `tidegate bench` without a terminal.

use std::process::{Command, Stdio};

use serde_json::Value;

use crate::program::{Case, Folder, check, check_in, tidegate};

/// Greedy and short.
const SHORT: [&str; 4] = ["--temperature", "0", "--max-tokens", "8"];

fn run(more: &[&'static str]) -> Vec<&'static str> {
    ["run"].into_iter().chain(SHORT).chain(more.iter().copied()).collect()
}

fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn argument_pipe_and_dash_give_the_same_text() {
    let from_argument =
        check(&Case { arguments: &run(&["Once upon a tide"]), stdout: &["\n"], ..Case::default() });
    let from_pipe = check(&Case {
        arguments: &run(&[]),
        stdin: Some("Once upon a tide\n"),
        stdout: &["\n"],
        ..Case::default()
    });
    let from_dash = check(&Case {
        arguments: &run(&["-"]),
        stdin: Some("Once upon a tide"),
        stdout: &["\n"],
        ..Case::default()
    });
    assert!(from_argument.trim().len() > 1, "{from_argument:?}");
    assert_eq!(from_argument, from_pipe);
    assert_eq!(from_argument, from_dash);
}

#[test]
fn json_object() {
    let text = check(&Case {
        arguments: &run(&["--json", "--ignore-eos", "Hello"]),
        stdout: &["{"],
        ..Case::default()
    });
    let object = parse(&text);
    assert_eq!(object["model"], "tidegate-tiny");
    assert_eq!(object["finish_reason"], "length");
    assert_eq!(object["usage"]["completion_tokens"], 8);
    assert!(object["usage"]["prompt_tokens"].as_u64().unwrap() > 0);
    assert!(object["timing"]["first_token_ms"].as_f64().unwrap() > 0.0);
}

#[test]
fn json_lines_concatenate_to_the_text() {
    let text =
        check(&Case { arguments: &run(&["--json=lines", "Hello"]), stdout: &["{"], ..Case::default() });
    let lines: Vec<Value> = text.lines().map(parse).collect();
    assert_eq!(lines[0]["event"], "accepted");
    let pieces: String = lines
        .iter()
        .filter(|line| line["event"] == "delta")
        .filter_map(|line| line["text"].as_str())
        .collect();
    let last = lines.last().unwrap();
    assert_eq!(last["event"], "done");
    assert_eq!(last["text"], pieces);
}

#[test]
fn seed_repeats_and_raw_differs_from_chat() {
    let sampled = |more: &[&str]| {
        let arguments: Vec<_> =
            ["run", "-t", "1", "-n", "12", "--json", "Tell me"].iter().chain(more).copied().collect();
        parse(&check(&Case { arguments: &arguments, stdout: &["{"], ..Case::default() }))
    };
    let (once, again) = (sampled(&["--seed", "7"]), sampled(&["--seed", "7"]));
    assert_eq!(once["text"], again["text"]);
    let raw = sampled(&["--seed", "7", "--raw"]);
    assert!(raw["usage"]["prompt_tokens"].as_u64() < once["usage"]["prompt_tokens"].as_u64());
}

#[test]
fn wrong_use_exits_with_2() {
    let check = |arguments: &[&str], stderr: &[&str]| {
        check(&Case { arguments, exit: 2, stderr, ..Case::default() });
    };
    check(&["run", "--temprature", "0", "hi"], &["unexpected argument '--temprature'", "'--temperature'"]);
    check(&["run", "--dtype", "int3", "hi"], &["invalid value 'int3'", "f32, bf16"]);
    check(&["run", "--isa", "sse", "hi"], &["there is no instruction set 'sse'"]);
    check(&["run", "--top-p", "3", "hi"], &["top_p must be above 0 and at most 1, got 3"]);
    check(&["run", "-n", "1000000", "hi"], &["1000000 more were requested"]);
    check(&["run", ""], &["the prompt is empty", "tidegate run \"Once upon a tide\""]);
    check(&["run"], &["the prompt is empty"]);
    check(&["run", "--raw", "--system", "x", "hi"], &["cannot be used with"]);
    check(&["run", "--log", "engine=loud", "hi"], &["'engine=loud' is not a log filter"]);
    check(&["run", "--max-sequences", "600", "hi"], &["max_batch_tokens", "at least max_sequences (600)"]);
    check(&["rum"], &["unrecognized subcommand 'rum'", "'run'"]);
    check(&[], &["Usage: tidegate", "Exit codes:"]);
}

#[test]
fn images_that_cannot_be_used_exit_with_2() {
    const RED: &[u8] = include_bytes!("../../../images/test_data/formats/rgb.png");
    let files =
        Folder::new().with("red.png", RED).with("cut.png", &RED[..40]).with("notes.txt", "some notes");
    let check = |arguments: &[&str], stderr: &[&str]| {
        check_in(&files, &Case { arguments, exit: 2, stderr, ..Case::default() });
    };
    let wanted = "--image takes a PNG, JPEG, WebP or GIF file";
    check(&["run", "--image", "none.png", "hi"], &["cannot read the image none.png: No such file", wanted]);
    check(&["run", "--image", ".", "hi"], &["cannot read the image .: Is a directory", wanted]);
    check(
        &["run", "--image", "notes.txt", "hi"],
        &["notes.txt: the image is neither PNG, JPEG, WebP nor GIF"],
    );
    check(&["run", "--image", "cut.png", "hi"], &["cut.png: the PNG image cannot be decoded"]);
    check(&["run", "--image", "red.png", "--raw", "hi"], &["cannot be used with"]);
    let wanted = "--video-frames takes a folder of images";
    check(&["run", "--video-frames", "none", "hi"], &["cannot read the folder none: No such file", wanted]);
    check(&["run", "--video-frames", ".", "hi"], &["the PNG image cannot be decoded"]);
    check(&["run", "--video-fps", "2", "hi"], &["--video-frames"]);
    check(&["run", "--video-frames", ".", "--video-fps", "0", "hi"], &["'0' is no number from 0.01"]);
    let blind = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/test_data/qwen3/model");
    check(
        &["run", "--model", blind, "--image", "red.png", "hi"],
        &["'model' reads text and cannot see", "leave the images out"],
    );
}

/// Pictures that training never saw, with questions about colour, shape, count and position: made by
/// `tools/embedded_chat/show.py`. How many there are of one kind is what the model does not know well (see its card).
#[test]
fn embedded_model_answers_about_held_out_pictures() {
    const ASKED: &str = include_str!("../../test_data/pictures/questions.json");
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/test_data/pictures/");
    let asked: Vec<Value> = serde_json::from_str(ASKED).unwrap();
    let right = asked.iter().filter(|asked| {
        let picture = format!("{folder}{}", asked["picture"].as_str().unwrap());
        let question = asked["question"].as_str().unwrap();
        let arguments = ["run", "--temperature", "0", "--image", &picture, question];
        let answer = check(&Case { arguments: &arguments, stdout: &["\n"], ..Case::default() });
        answer.trim() == asked["answer"].as_str().unwrap()
    });
    let right = right.count();
    assert!(right >= 10, "{right} of {} answers are right", asked.len());
}

#[test]
fn wrong_models_exit_with_1() {
    let empty = Folder::new();
    let check = |model: &str, stderr: &[&str]| {
        check_in(
            &empty,
            &Case { arguments: &["run", "--model", model, "hi"], exit: 1, stderr, ..Case::default() },
        );
    };
    check("missing", &["there is no missing; give a model folder", "or a .gguf file"]);
    check(".", &["has no config.json", "a model folder needs"]);
    let files = Folder::new()
        .with("model-q8_0.gguf", b"GGUF\x03\0\0\0")
        .with("notes.gguf", "some notes")
        .with("model.safetensors", "tensors");
    let check_file = |name: &str, stderr: &[&str]| check(files.path().join(name).to_str().unwrap(), stderr);
    let advice = "fetch or convert the file again";
    check_file("model-q8_0.gguf", &["the number of tensors at byte 8", "may be cut short", advice]);
    check_file("notes.gguf", &["notes.gguf is not a GGUF file", "found 'some'", advice]);
    check_file("model-q8.gguf", &["there is no", "(but there is", "model-q8_0.gguf)"]);
    check_file(
        "model.safetensors",
        &["is a safetensors file; Tidegate reads GGUF files and Hugging Face folders"],
    );
    check_file("", &["has no config.json", "it has model-q8_0.gguf: give that file itself"]);
    let strange = Folder::new().with("config.json", r#"{"model_type": "mamba"}"#);
    check(
        strange.path().to_str().unwrap(),
        &["config.json: model_type 'mamba' is not supported; known are", "qwen3"],
    );
}

#[test]
fn time_limit_exits_with_4() {
    let arguments = ["run", "--timeout", "0", "hi"];
    check(&Case {
        arguments: &arguments,
        exit: 4,
        stdout: &[],
        stderr: &["deadline passed"],
        ..Case::default()
    });
}

#[test]
fn help_and_version_go_to_stdout() {
    let check = |arguments: &[&str], stdout: &[&str]| check(&Case { arguments, stdout, ..Case::default() });
    check(&["--version"], &[concat!("tidegate ", env!("CARGO_PKG_VERSION"))]);
    check(&["run", "--help"], &["--temperature", "[env: TIDEGATE_MODEL=]"]);
    check(&["completions", "bash"], &["_tidegate()", "--max-queue"]);
}

#[test]
fn closed_output_ends_quietly() {
    let folder = Folder::new();
    let mut command = tidegate(&folder, &["run", "--json=lines", "--ignore-eos", "hi"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
}

#[test]
fn bench_prints_the_figures() {
    let load = ["bench", "--prompt", "16", "--out", "8", "--repeat", "2", "--warmup", "0"];
    let arguments: Vec<_> = load.into_iter().chain(["--concurrency", "3", "--json"]).collect();
    let text =
        check(&Case { arguments: &arguments, stdout: &["{"], stderr: &["tidegate-tiny"], ..Case::default() });
    let object = parse(&text);
    assert_eq!(object["peer"], "tidegate");
    assert_eq!(
        (&object["prompt"], &object["out"], &object["concurrency"]),
        (&16.into(), &8.into(), &3.into())
    );
    // Rates between tokens are left to the unit tests: on a busy machine few tokens may all arrive together.
    for figure in ["ttft_ms", "total_tok_s"] {
        assert!(object[figure].as_f64().unwrap() > 0.0, "{figure}: {text}");
        assert_eq!(object[format!("{figure}_spread")].as_array().unwrap().len(), 2);
    }
    assert!(object["peak_rss_mb"].as_u64().unwrap() > 0);
    assert_eq!(object["other_cpu"].as_array().unwrap().len(), 2);

    let arguments: Vec<_> = load.into_iter().chain(["--quiet"]).collect();
    let stdout = ["1 x 16 tokens in, 8 tokens out", "reading the prompt", "first token after", "peak memory"];
    check(&Case { arguments: &arguments, stdout: &stdout, ..Case::default() });
}

/// The embedded model as the folder that it was compiled from.
fn folder() -> String {
    concat!(env!("CARGO_MANIFEST_DIR"), "/embedded/tidegate-tiny").to_owned()
}

#[test]
fn folder_answers_as_the_embedded_model_does() {
    let folder = folder();
    let text = |more: &[&str]| {
        let arguments: Vec<_> = ["run", "-t", "0", "-n", "24"].iter().chain(more).copied().collect();
        check(&Case { arguments: &arguments, stdout: &["\n"], ..Case::default() })
    };
    assert_eq!(text(&["Tell me a story."]), text(&["--model", &folder, "Tell me a story."]));
}

#[test]
fn bench_script_prints_a_line_like_those_of_other_engines() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tools/bench_tidegate.py");
    let binary = concat!("binary=", env!("CARGO_BIN_EXE_tidegate"));
    let output = Command::new("python3")
        .args([script, "--model", &folder(), "--prompt", "8", "--out", "4", "--repeat", "1", "--warmup", "0"])
        .args(["--precision", "fp32", "--threads", "1", "--opt", "max-batch-tokens=64", "--opt", binary])
        .output()
        .expect("the tools need python3");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with(r#"{"peer": "tidegate""#), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let line = parse(&text);
    assert_eq!(line["precision"], "fp32");
    assert_eq!(line["threads"], 1);
    assert_eq!(line["opts"]["max-batch-tokens"], "64");
    for figure in ["prefill_tok_s", "ttft_ms", "total_tok_s"] {
        assert!(line[figure].as_f64().unwrap() > 0.0, "{figure}: {text}");
    }
}

#[test]
fn bench_floor_sets_every_part_of_a_pass_beside_the_machine() {
    let arguments = ["bench", "--floor", "--json", "--threads", "1"];
    let object = parse(&check(&Case { arguments: &arguments, stdout: &["{"], ..Case::default() }));
    assert!(object["machine"][0]["read_bytes_per_s"].as_f64().unwrap() > 0.0);
    let loads = object["loads"].as_array().unwrap();
    let sequences: Vec<_> = loads.iter().map(|load| load["sequences"].as_u64().unwrap()).collect();
    assert_eq!(sequences, [1, 1, 8, 32]);
    for load in loads {
        let stages = load["stages"].as_array().unwrap();
        for name in ["queries, keys, values", "attention", "gate and up", "down", "logits", "the whole pass"]
        {
            let stage = stages.iter().find(|stage| stage["stage"] == name).expect(name);
            assert!(stage["floor_share"].as_f64().unwrap() > 0.0, "{name}: {stage}");
        }
        assert_eq!(load["sampling"].as_array().unwrap().len(), 3);
    }
    let arguments = ["bench", "--floor", "--threads", "1"];
    let stdout = ["GB/s read", "1 x 1 token after", "32 x 1 token after", "top-k 20", "of all"];
    check(&Case { arguments: &arguments, stdout: &stdout, ..Case::default() });
    let arguments = ["bench", "--floor", "--prompt", "4"];
    check(&Case { arguments: &arguments, exit: 2, stderr: &["cannot be used with"], ..Case::default() });
}

#[test]
fn bench_refuses_what_does_not_fit() {
    let arguments = ["bench", "--prompt", "100000"];
    check(&Case { arguments: &arguments, exit: 1, stderr: &["lower --prompt or --out"], ..Case::default() });
}
