//! Loading: how much memory it takes, and what is kept for the next start; on models made for it.

use std::fs;

use serde_json::{Value, json};

use crate::program::{Case, Folder, check_in};

/// Widths of a made-up Qwen3.
const HIDDEN: usize = 512;
const INNER: usize = 2048;
const VOCABULARY: usize = 352;

/// Names and shapes of all tensors.
fn tensors(layers: usize) -> Vec<(String, Vec<usize>)> {
    let mut all = vec![
        ("model.embed_tokens.weight".to_owned(), vec![VOCABULARY, HIDDEN]),
        ("model.norm.weight".to_owned(), vec![HIDDEN]),
    ];
    for layer in 0..layers {
        for (name, shape) in [
            ("input_layernorm", vec![HIDDEN]),
            ("post_attention_layernorm", vec![HIDDEN]),
            ("self_attn.q_norm", vec![64]),
            ("self_attn.k_norm", vec![64]),
            ("self_attn.q_proj", vec![HIDDEN, HIDDEN]),
            ("self_attn.k_proj", vec![HIDDEN, HIDDEN]),
            ("self_attn.v_proj", vec![HIDDEN, HIDDEN]),
            ("self_attn.o_proj", vec![HIDDEN, HIDDEN]),
            ("mlp.gate_proj", vec![INNER, HIDDEN]),
            ("mlp.up_proj", vec![INNER, HIDDEN]),
            ("mlp.down_proj", vec![HIDDEN, INNER]),
        ] {
            all.push((format!("model.layers.{layer}.{name}.weight"), shape));
        }
    }
    all
}

/// A model folder whose weights are f32, so that they take several times the memory that they are packed into.
fn model(folder: &Folder, layers: usize) {
    let path = folder.path().join("model");
    fs::create_dir_all(&path).unwrap();
    let config = json!({
        "model_type": "qwen3", "hidden_size": HIDDEN, "num_hidden_layers": layers, "num_attention_heads": 8,
        "num_key_value_heads": 8, "head_dim": 64, "intermediate_size": INNER, "vocab_size": VOCABULARY,
        "max_position_embeddings": 512, "rms_norm_eps": 1e-6, "rope_theta": 10000, "hidden_act": "silu",
        "tie_word_embeddings": true, "eos_token_id": 0,
    });
    fs::write(path.join("config.json"), config.to_string()).unwrap();
    let tiny = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/test_data/qwen3/model");
    fs::copy(tiny.join("tokenizer.json"), path.join("tokenizer.json")).unwrap();

    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    let mut random = 1u32;
    for (name, shape) in tensors(layers) {
        let begin = data.len();
        for _ in 0..shape.iter().product::<usize>() {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let value = (random >> 8) as f32 / (1 << 24) as f32 - 0.5;
            data.extend((0.1 * value).to_le_bytes());
        }
        header.insert(name, json!({"dtype": "F32", "shape": shape, "data_offsets": [begin, data.len()]}));
    }
    let header = Value::Object(header).to_string();
    let file = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &data].concat();
    fs::write(path.join("model.safetensors"), file).unwrap();
}

/// The largest memory of a run, in MB.
fn peak(folder: &Folder, arguments: &[&str]) -> f64 {
    let bench = ["bench", "--json", "--prompt", "1", "--out", "1", "--repeat", "1", "--warmup", "0"];
    let common =
        ["--quiet", "--no-cache", "--threads", "2", "--kv-memory", "8MiB", "--max-batch-tokens", "8"];
    let arguments = [&bench[..], &common, arguments].concat();
    let shown = check_in(folder, &Case { arguments: &arguments, stdout: &["peak"], ..Case::default() });
    let shown: Value = serde_json::from_str(&shown).unwrap();
    shown["peak_rss_mb"].as_f64().unwrap_or_else(|| panic!("{shown}"))
}

#[test]
fn loading_holds_little_more_than_what_it_makes() {
    let folder = Folder::new();
    model(&folder, 8);
    let all = tensors(8);
    let elements = |shape: &[usize]| shape.iter().product::<usize>() as f64;
    let weights: f64 = all.iter().map(|(_, shape)| elements(shape)).sum();
    // The largest stacked layer, as it is stored.
    let layer = 4.0 * (2 * INNER * HIDDEN) as f64;
    let without_model = peak(&folder, &[]);
    for (dtype, bits) in [("int8", 8.1), ("int4", 5.0), ("bf16", 16.0)] {
        let most = 1.3 * weights * bits / 8.0 + layer;
        let taken = peak(&folder, &["--model", "model", "--dtype", dtype]) - without_model;
        assert!(taken < most / 1e6, "{dtype}: {taken} MB, {} allowed", most / 1e6);
    }
}

#[test]
fn packed_weights_are_kept_listed_used_and_removed() {
    let folder = Folder::new();
    model(&folder, 1);
    let check = |arguments: &[&str], exit: i32, stdout: &[&str], stderr: &[&str]| {
        check_in(&folder, &Case { arguments, exit, stdout, stderr, ..Case::default() })
    };
    let list = |count: usize| {
        let shown = check(&["cache", "list", "--json"], 0, &["entries"], &[]);
        let shown: Value = serde_json::from_str(&shown).unwrap();
        let entries = shown["entries"].as_array().unwrap().clone();
        assert_eq!(entries.len(), count, "{shown}");
        entries
    };
    let run = [
        "run",
        "--raw",
        "--max-tokens",
        "4",
        "--temperature",
        "0",
        "--model",
        "model",
        "--dtype",
        "int8",
        "tide",
    ];
    list(0);
    let plain = check(&[&run[..], &["--no-cache"]].concat(), 0, &[""], &[]);
    check(&[&run[..], &["--cache-size", "0"]].concat(), 0, &[&plain], &[]);
    list(0);
    check(&run, 0, &[&plain], &[]);
    check(&run, 0, &[&plain], &[]);
    let path = list(1)[0]["path"].as_str().unwrap().to_owned();
    check(&["cache", "list"], 0, &["model-int8-"], &["in 1 file\n"]);

    let mut bytes = fs::read(&path).unwrap();
    bytes[9000] ^= 1;
    fs::write(&path, bytes).unwrap();
    check(&run, 0, &[&plain], &["is damaged; packing the weights again"]);
    check(&run, 0, &[&plain], &[]);
    check(&[&run[..], &["--cache-size", "1MiB"]].concat(), 0, &[&plain], &[]);
    fs::remove_file(&path).unwrap();
    check(&[&run[..], &["--cache-size", "1MiB"]].concat(), 0, &[&plain], &["larger than the 1048576 bytes"]);
    check(&[&run[..], &["--cache-dir", "/proc/none"]].concat(), 0, &[&plain], &["going on without"]);

    check(&run, 0, &[&plain], &[]);
    list(1);
    check(&["cache", "clear"], 0, &[], &["removed"]);
    list(0);
    check(&["cache", "list", "--cache-size", "0"], 2, &[], &["--cache-dir names one"]);
}

#[test]
fn a_quantised_folder_answers_as_quantising_at_load_does() {
    let folder = Folder::new();
    model(&folder, 1);
    let check = |arguments: &[&str], exit: i32, stdout: &[&str], stderr: &[&str]| {
        check_in(&folder, &Case { arguments, exit, stdout, stderr, ..Case::default() })
    };
    let run = ["run", "--raw", "--max-tokens", "4", "--temperature", "0", "--no-cache", "tide", "--model"];
    let expected = check(&[&run[..], &["model", "--dtype", "int4"]].concat(), 0, &[""], &[]);
    let quantize = ["quantize", "model", "--dtype", "int4", "--out", "small"];
    check(&quantize, 0, &[], &["wrote small; try: tidegate run --model small"]);
    check(&[&run[..], &["small"]].concat(), 0, &[&expected], &[]);

    check(&quantize, 2, &[], &["small is there already; --force replaces it"]);
    check(&[&quantize[..], &["--force", "--quiet"]].concat(), 0, &[], &[]);
    check(&[&run[..], &["small", "--dtype", "int8"]].concat(), 2, &[], &["is quantised already (int4)"]);
    let weights = check(&[&run[..], &["model", "--dtype", "int4-weight-only"]].concat(), 0, &[""], &[]);
    check(&[&run[..], &["small", "--dtype", "int4-weight-only"]].concat(), 0, &[&weights], &[]);
    for other in ["bf16", "int8-weight-only"] {
        let quantize = ["quantize", "model", "--dtype", other, "--out", "x"];
        check(&quantize, 2, &[], &["--dtype must be int8, int4 or int4-g128 here"]);
    }
    let mut names: Vec<_> =
        fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["model", "small"]);
}
