//! Folders that are wrong: the error says the file, what was expected and what was found, and nothing panics.

use std::sync::Arc;

use serde_json::{Value, json};
use tensor::stored::{FileBytes, Tensors};
use tensor::{Dtype, Isa, KvArena};

use super::folder::{Folder, Stored, safetensors, tokenizer_json, with_header};
use crate::{Batch, InMemory, LoadOptions, ModelError, Repository};

pub(super) fn qwen3() -> Folder {
    Folder::qwen3([16, 2, 1, 4], json!({"tie_word_embeddings": false}), 1)
}

pub(super) fn gpt2() -> Folder {
    Folder::gpt2(12, 2, "", 1)
}

/// Breaks a valid folder and compares the error, without the place of the embedded folder.
fn check(mut folder: Folder, break_it: impl FnOnce(&mut Folder), message: &str) {
    assert!(folder.load(None, Isa::Scalar, 1).is_ok());
    break_it(&mut folder);
    let error = folder
        .load(None, Isa::Scalar, 1)
        .err()
        .map(|error| error.to_string().replace("(embedded)/tiny/", ""));
    assert_eq!(error.as_deref(), Some(message));
}

fn set(key: &'static str, value: Value) -> impl FnOnce(&mut Folder) {
    move |folder| folder.config[key] = value
}

fn file(name: &'static str, content: impl Into<Vec<u8>>) -> impl FnOnce(&mut Folder) {
    move |folder| drop(folder.files.insert(name, Some(content.into())))
}

/// Sets one key of a valid config.json, which must then be refused with `message` about that key.
fn check_config(folder: fn() -> Folder, refused: &[(&'static str, Value, &str)]) {
    for (key, value, message) in refused {
        check(folder(), set(key, value.clone()), &format!("config.json: '{key}': expected {message}"));
    }
}

#[test]
fn wrong_qwen3_configs() {
    check_config(
        qwen3,
        &[
            ("num_attention_heads", json!(0), "a whole number from 1 to 1048576, found 0"),
            ("num_key_value_heads", json!(3), "a divisor of num_attention_heads, which is 2, found 3"),
            ("head_dim", json!(5), "an even number, since halves of a head are rotated, found 5"),
            (
                "num_hidden_layers",
                json!(u64::MAX),
                "a whole number from 1 to 4096, found 18446744073709551615",
            ),
            ("vocab_size", json!(1e30), "a whole number from 1 to 1048576, found 1e+30"),
            ("use_sliding_window", json!(true), "false (sliding windows are not supported), found true"),
            (
                "layer_types",
                json!(["full_attention", "sliding_attention"]),
                "a list of 'full_attention', found a list of 2",
            ),
            ("hidden_act", json!("gelu"), "'silu', found 'gelu'"),
            ("rms_norm_eps", json!("small"), "a number from 0 to 1, found 'small'"),
            ("torch_dtype", json!("int8"), "float32, bfloat16 or float16, found 'int8'"),
            ("eos_token_id", json!(270), "ids below the vocabulary of 270, found 270"),
            ("attention_bias", json!(1), "true or false, found 1"),
            ("hidden_size", Value::Null, "a whole number from 1 to 1048576, found nothing"),
        ],
    );
}

#[test]
fn wrong_gpt2_configs() {
    check_config(
        gpt2,
        &[
            ("activation_function", json!("relu"), "gelu_new, gelu_pytorch_tanh, gelu or silu, found 'relu'"),
            ("scale_attn_by_inverse_layer_idx", json!(true), "false, found true"),
        ],
    );
    let message = "config.json: 'n_embd': expected a multiple of n_head, which is 5, found 12";
    check(gpt2(), set("n_head", json!(5)), message);
    let message = "config.json: '(whole file)': expected an object, found a list of 1";
    check(gpt2(), |folder| folder.config = json!([1]), message);
}

#[test]
fn scaled_rope() {
    let message =
        "config.json: 'rope_scaling.type': expected 'default' (scaled rope is not supported), found 'yarn'";
    check(qwen3(), set("rope_scaling", json!({"type": "yarn"})), message);
}

#[test]
fn unknown_architectures() {
    let known = "is not supported; known are gpt2, qwen3, qwen3_vl, bert, roberta, xlm-roberta, camembert";
    check(qwen3(), set("model_type", json!("mamba")), &format!("config.json: model_type 'mamba' {known}"));
    check(qwen3(), set("model_type", Value::Null), &format!("config.json: model_type '' {known}"));
}

/// Replaces a tensor by zeros of another shape.
fn resize(name: &'static str, shape: [usize; 2]) -> impl FnOnce(&mut Folder) {
    move |folder| {
        let values = vec![0.0; shape[0] * shape[1]];
        folder.tensors.insert(name.to_owned(), Stored { shape: shape.to_vec(), values });
    }
}

#[test]
fn wrong_tensors() {
    check(
        qwen3(),
        |folder| drop(folder.tensors.remove("model.layers.1.mlp.up_proj.weight")),
        "model.safetensors has no tensor 'model.layers.1.mlp.up_proj.weight'; the most similar names are model.layers.0.mlp.up_proj.weight, model.layers.1.mlp.down_proj.weight, model.layers.1.mlp.gate_proj.weight",
    );
    check(
        qwen3(),
        |folder| drop(folder.tensors.remove("lm_head.weight")),
        "model.safetensors has no tensor 'lm_head.weight'; the most similar names are model.embed_tokens.weight, model.layers.0.input_layernorm.weight, model.layers.0.mlp.down_proj.weight",
    );
    check(
        qwen3(),
        resize("lm_head.weight", [270, 15]),
        "model.safetensors: tensor 'lm_head.weight': config.json implies the shape [270, 16], found [270, 15]",
    );
    check(
        qwen3(),
        set("hidden_size", json!(1 << 20)),
        "model.safetensors: tensor 'model.embed_tokens.weight': config.json implies the shape [270, 1048576], found [270, 16]",
    );
    check(
        qwen3(),
        set("num_hidden_layers", json!(4096)),
        "model.safetensors has no tensor 'model.layers.2.input_layernorm.weight'; the most similar names are model.layers.0.input_layernorm.weight, model.layers.1.input_layernorm.weight, model.layers.0.post_attention_layernorm.weight",
    );
    check(
        gpt2(),
        resize("h.1.mlp.c_fc.weight", [37, 12]),
        "model.safetensors: tensor 'h.1.mlp.c_fc.weight': config.json implies the shape [12, 37], found [37, 12]",
    );
    check(
        gpt2(),
        set("n_positions", json!(1 << 27)),
        "model.safetensors: tensor 'wpe.weight': config.json implies the shape [134217728, 12], found [96, 12]",
    );
    check(
        gpt2(),
        set("vocab_size", json!(261)),
        "model.safetensors: tensor 'wte.weight': config.json implies the shape [261, 12], found [270, 12]",
    );
}

#[test]
fn tensors_that_contradict_other_files() {
    check(
        gpt2(),
        |folder| {
            set("vocab_size", json!(261))(folder);
            resize("wte.weight", [261, 12])(folder);
        },
        "tokenizer.json has ids up to 261, but the model's vocabulary is 261; tokenizer and weights belong to different models",
    );
    let integers = with_header(
        r#"{"wte.weight": {"dtype": "I64", "shape": [270, 12], "data_offsets": [0, 25920]}}"#,
        &[0; 25920],
    );
    check(
        gpt2(),
        file("model.safetensors", integers),
        "model.safetensors: tensor 'wte.weight': expected one of F32, F16, BF16, found I64",
    );
}

#[test]
fn wrong_files() {
    let needs = "a model folder needs config.json, tokenizer.json and model.safetensors (or model.safetensors.index.json with all files it lists)";
    let without = |name: &'static str| move |folder: &mut Folder| drop(folder.files.insert(name, None));
    check(gpt2(), without("config.json"), &format!(" has no config.json; {needs}"));
    check(gpt2(), without("tokenizer.json"), &format!(" has no tokenizer.json; {needs}"));
    check(gpt2(), without("model.safetensors"), &format!(" has no model.safetensors; {needs}"));
    check(
        gpt2(),
        |folder| {
            without("model.safetensors")(folder);
            file("pytorch_model.bin", "x")(folder);
        },
        &format!(" has no model.safetensors; {needs}; it has pytorch_model.bin: convert it to safetensors"),
    );
    check(
        gpt2(),
        file("config.json", "{\"model_type\": "),
        "config.json is not valid JSON: EOF while parsing a value at line 1 column 15",
    );
    check(
        gpt2(),
        file("generation_config.json", "[]"),
        "generation_config.json: '(whole file)': expected an object, found a list of 0",
    );
    check(
        gpt2(),
        file("generation_config.json", "{\"temperature\": -1}"),
        "generation_config.json: 'temperature': expected a number from 0 to 100, found -1",
    );
    let tokenizer = |changes: Value| file("tokenizer.json", tokenizer_json(&changes));
    let decoder = "tokenizer.json: expected a byte-level BPE tokenizer with decoder 'ByteLevel', found";
    check(gpt2(), tokenizer(json!({"decoder": null})), &format!("{decoder} none"));
    check(gpt2(), tokenizer(json!({"decoder": {"type": "Fuse"}})), &format!("{decoder} 'Fuse'"));
    let word_level = json!({"model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}});
    check(
        gpt2(),
        tokenizer(word_level),
        "tokenizer.json: expected a byte-level BPE tokenizer with model 'BPE', found 'WordLevel'",
    );
    check(
        gpt2(),
        file("chat_template.jinja", "{% for m in %}"),
        "chat_template.jinja: the chat template does not parse: syntax error: unexpected end of block (in default:1)",
    );
    check(
        gpt2(),
        file("tokenizer_config.json", "{\"chat_template\": 3}"),
        "tokenizer_config.json: 'chat_template': expected a text, or a list of objects with name and template, found 3",
    );
}

#[test]
fn wrong_safetensors() {
    let whole = gpt2().contents()["model.safetensors"].clone();
    let broken = |content: Vec<u8>, reason: &str| {
        let message = format!(
            "model.safetensors is not a valid safetensors file: {reason}; fetch or convert the file again"
        );
        check(gpt2(), file("model.safetensors", content), &message);
    };
    let absurd = r#"{"a": {"dtype": "F32", "shape": [4294967296, 4294967296], "data_offsets": [0, 4]}}"#;
    broken(
        whole[..whole.len() - 4].to_vec(),
        "tensor 'wte.weight' needs 12960 bytes, but its range is 17584..30544 in 30540 bytes of data; the file may be cut short",
    );
    broken(whole[..100].to_vec(), "the header claims 2320 bytes where at most 92 can be");
    broken(whole[..5].to_vec(), "expected at least 8 bytes, found 5");
    broken(
        u64::MAX.to_le_bytes().to_vec(),
        "the header claims 18446744073709551615 bytes where at most 0 can be",
    );
    broken(
        with_header(absurd, &[0; 4]),
        "tensor 'a' of shape [4294967296, 4294967296] has no size in bytes that can be",
    );
}

/// A folder whose tensors are spread over two files behind an index, which `change` may spoil.
fn sharded(change: impl FnOnce(&mut Value)) -> Folder {
    let mut folder = gpt2();
    let early = |name: &str| name < "h.1";
    let names = folder.tensors.keys();
    let place = |name: &String| if early(name) { "model-1.safetensors" } else { "model-2.safetensors" };
    let mut index = json!({"weight_map": names.map(|name| (name.clone(), place(name).into())).collect::<serde_json::Map<_, _>>()});
    change(&mut index);
    let part = |wanted: bool| safetensors(folder.tensors.iter().filter(|(name, _)| early(name) == wanted));
    let files = [("model-1.safetensors", part(true)), ("model-2.safetensors", part(false))];
    folder.files.insert("model.safetensors", None);
    folder.files.insert("model.safetensors.index.json", Some(index.to_string().into_bytes()));
    folder.files.extend(files.map(|(name, content)| (name, Some(content))));
    folder
}

#[test]
fn wrong_shards() {
    let move_to =
        |shard: &'static str| move |index: &mut Value| index["weight_map"]["wte.weight"] = shard.into();
    let spoil = |change: fn(&mut Value)| move |folder: &mut Folder| *folder = sharded(change);
    let index = "model.safetensors.index.json";
    for escape in ["../model-1.safetensors", "/etc/passwd", "a/b.safetensors", "..", ".", "", "a\\b"] {
        let message = format!("{index}: expected the name of a file in the same folder, found '{escape}'");
        check(sharded(|_| ()), |folder| *folder = sharded(move_to(escape)), &message);
    }
    check(
        sharded(|_| ()),
        |folder| *folder = sharded(move_to("model-3.safetensors")),
        &format!(
            "model-3.safetensors is missing, but {index} lists it for tensor 'wte.weight'; fetch the file or the whole folder again"
        ),
    );
    check(
        sharded(|_| ()),
        |folder| *folder = sharded(move_to("model-1.safetensors")),
        &format!("model-1.safetensors has no tensor 'wte.weight', but {index} says it has"),
    );
    let unlisted = sharded(|index| drop(index["weight_map"].as_object_mut().unwrap().remove("wpe.weight")));
    assert!(unlisted.load(None, Isa::Scalar, 1).is_ok());
    check(
        sharded(|_| ()),
        spoil(|index| index["weight_map"] = json!([])),
        &format!(
            "{index}: 'weight_map': expected an object of tensor names and file names, found a list of 0"
        ),
    );
}

#[test]
fn spare_tensors_and_stored_types_are_taken_as_they_come() {
    let mut folder = Folder::qwen3([16, 2, 1, 4], json!({"tie_word_embeddings": true}), 1);
    folder.tensors.insert("lm_head.weight".to_owned(), Stored { shape: vec![3], values: vec![0.0; 3] });
    let dtypes = |config: Value, asked| {
        let mut folder = folder.clone();
        folder.config.as_object_mut().unwrap().extend(config.as_object().unwrap().clone());
        folder.load(asked, Isa::Scalar, 1).map(|loaded| loaded.dtype)
    };
    assert_eq!(dtypes(json!({}), None).unwrap(), Dtype::F32);
    assert_eq!(dtypes(json!({"torch_dtype": "bfloat16"}), None).unwrap(), Dtype::Bf16);
    assert_eq!(dtypes(json!({"dtype": "bfloat16", "torch_dtype": "float32"}), None).unwrap(), Dtype::Bf16);
    assert_eq!(dtypes(json!({"torch_dtype": "float16"}), None).unwrap(), Dtype::F32);
    assert_eq!(dtypes(json!({"torch_dtype": "float16"}), Some(Dtype::Bf16)).unwrap(), Dtype::Bf16);
    let refused = dtypes(json!({}), Some(Dtype::F16)).unwrap_err().to_string();
    assert_eq!(refused, "weights can be held as f32 or bf16, not as f16");
}

#[test]
fn a_model_in_memory_is_the_model_of_its_folder() {
    let folder = qwen3();
    let logits = |repository: &Repository| -> Result<Vec<f32>, ModelError> {
        let options =
            LoadOptions { dtype: None, quantise: None, kv: None, max_batch_tokens: 16, max_outputs: 16 };
        let mut loaded = crate::load(repository, &options, tensor::kernels(Isa::best(), 1))?;
        let mut kv = KvArena::new(loaded.model.shape().kv, 1).unwrap();
        let mut batch = Batch::default();
        batch.push(&[1, 2, 3], 0, &[0]);
        batch.outputs.extend(0..3);
        Ok(loaded.model.forward(&batch, &mut kv).logits.to_vec())
    };
    let single = |name: &String, shape: &[usize], values: &[f32]| {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Tensors::single(name.clone(), Dtype::F32, shape.to_vec(), FileBytes::Lent(Arc::new(bytes)))
    };
    let held = |least: &str| {
        let tensors = folder.tensors.iter().filter(|(name, _)| name.as_str() >= least);
        let tensors = tensors.map(|(name, stored)| single(name, &stored.shape, &stored.values).unwrap());
        let files = folder.contents().into_iter().filter(|(name, _)| !name.ends_with("safetensors"));
        let files = files.map(|(name, bytes)| (name.to_owned(), bytes)).collect();
        Repository::in_memory(InMemory { name: "held".to_owned(), files, tensors: tensors.collect() })
    };
    assert_eq!(logits(&held("")).unwrap(), logits(&folder.repository()).unwrap());
    let missing = logits(&held("model.layers")).unwrap_err().to_string();
    assert!(
        missing.starts_with("(memory)/held") && missing.contains("model.embed_tokens.weight"),
        "{missing}"
    );
    assert!(single(&"short".to_owned(), &[2, 3], &[0.0; 5]).is_none());
    assert!(single(&"endless".to_owned(), &[usize::MAX, 3], &[0.0; 5]).is_none());
}
