//! Files that are wrong: the error says the file, what was expected and what was found, and nothing panics.

use proptest::prelude::*;
use serde_json::json;
use tensor::Isa;

use super::super::folder::Folder;
use super::file::{File, Key, Tensor, repository};
use crate::{LoadOptions, LoadedModel, ModelError};

fn qwen3() -> File {
    File::of(&Folder::qwen3([16, 2, 1, 4], json!({"tie_word_embeddings": false}), 1))
}

fn gpt2() -> File {
    File::of(&Folder::gpt2(12, 2, "", 1))
}

fn load(bytes: Vec<u8>) -> Result<LoadedModel, ModelError> {
    let options = LoadOptions { dtype: None, quantise: None, kv: None, max_batch_tokens: 8, max_outputs: 8 };
    crate::load(&repository(bytes)?, &options, tensor::kernels(Isa::Scalar, 1))
}

/// Breaks a valid file and compares the error.
fn check(mut file: File, break_it: impl FnOnce(&mut File), message: &str) {
    assert!(load(file.bytes()).is_ok());
    break_it(&mut file);
    let error = load(file.bytes()).err().map(|error| error.to_string());
    assert_eq!(error.as_deref(), Some(format!("tiny.gguf{message}").as_str()));
}

fn set(key: &'static str, value: Key) -> impl FnOnce(&mut File) {
    move |file| drop(file.keys.insert(key.to_owned(), value))
}

fn without(key: &'static str) -> impl FnOnce(&mut File) {
    move |file| drop(file.keys.remove(key))
}

fn said(text: &str) -> Key {
    Key::Text(text.to_owned())
}

#[test]
fn other_architectures() {
    let known = "is not supported; known are gpt2, qwen3";
    check(
        qwen3(),
        set("general.architecture", said("llama")),
        &format!(": general.architecture 'llama' {known}"),
    );
    check(qwen3(), without("general.architecture"), &format!(": general.architecture '' {known}"));
    let message = ": 'general.architecture': expected a text, found 7";
    check(qwen3(), set("general.architecture", Key::U32(7)), message);
}

#[test]
fn wrong_settings() {
    for (key, value, message) in [
        ("attention.head_count", Key::U32(0), "expected a whole number from 1 to 1048576, found 0"),
        ("attention.head_count", Key::I32(-2), "expected a whole number from 1 to 1048576, found -2"),
        (
            "attention.head_count_kv",
            Key::I32s(vec![1, 1]),
            "expected a whole number from 1 to 1048576, found a list of 2",
        ),
        (
            "attention.layer_norm_rms_epsilon",
            Key::F32(f32::NAN),
            "expected a number from 0 to 1, found 'NaN'",
        ),
        (
            "attention.sliding_window",
            Key::U32(64),
            "expected false (sliding windows are not supported), found 64",
        ),
        (
            "rope.scaling.type",
            said("yarn"),
            "expected 'default' (scaled rope is not supported), found 'yarn'",
        ),
        ("rope.scaling.factor", Key::F32(4.0), "expected 1 (scaled rope is not supported), found 4.0"),
        ("rope.freq_base", said("high"), "expected a number from 1 to 1000000000000, found 'high'"),
        (
            "rope.dimension_count",
            Key::U32(2),
            "expected the same as 'qwen3.attention.key_length', which is 4, found 2",
        ),
        (
            "attention.value_length",
            Key::U32(8),
            "expected the same as 'qwen3.attention.key_length', which is 4, found 8",
        ),
    ] {
        let key = format!("qwen3.{key}");
        let message = format!(": '{key}': {message}");
        check(qwen3(), |file| drop(file.keys.insert(key, value)), &message);
    }
    let message = ": 'gpt2.embedding_length': expected a whole number from 1 to 1048576, found nothing";
    check(gpt2(), without("gpt2.embedding_length"), message);
    let message = ": 'gpt2.attention.head_count_kv': expected the same as 'gpt2.attention.head_count', which is 2, found 1";
    check(gpt2(), set("gpt2.attention.head_count_kv", Key::U32(1)), message);
    let message =
        ": 'split.count': expected 1 (a whole checkpoint; `llama-gguf-split --merge` joins parts), found 3";
    check(gpt2(), set("split.count", Key::U32(3)), message);
}

#[test]
fn settings_that_say_nothing_are_taken() {
    let mut file = qwen3();
    for (key, value) in [
        ("qwen3.rope.scaling.type", said("none")),
        ("qwen3.attention.sliding_window", Key::U32(0)),
        ("qwen3.rope.scaling.factor", Key::F32(1.0)),
        ("qwen3.rope.dimension_count", Key::U32(4)),
        ("split.count", Key::U32(1)),
        ("general.sampling.temp", Key::F32(0.5)),
        ("general.sampling.top_k", Key::I32(20)),
        ("tokenizer.ggml.add_bos_token", Key::Flag(false)),
        ("tokenizer.ggml.bos_token_id", Key::U32(7)),
        ("tokenizer.ggml.eot_token_id", Key::U32(8)),
    ] {
        file.keys.insert(key.to_owned(), value);
    }
    let loaded = load(file.bytes()).ok().unwrap();
    assert_eq!((loaded.generation.temperature, loaded.generation.top_k), (Some(0.5), Some(20)));
    assert_eq!((loaded.generation.eos_token_ids, loaded.generation.bos_token_id), (vec![260, 8], Some(7)));
    let rendered = loaded.chat_template.unwrap().render(&json!([{"content": "x"}]), &Default::default());
    assert_eq!(rendered.unwrap(), "x<|end|>");
}

#[test]
fn wrong_tokenizers() {
    let tokens = || match &qwen3().keys["tokenizer.ggml.tokens"] {
        Key::Texts(tokens) => tokens.clone(),
        _ => Vec::new(),
    };
    for (key, value, message) in [
        (
            "model",
            said("llama"),
            ": 'tokenizer.ggml.model': expected 'gpt2' (a byte-level BPE tokenizer), found 'llama'",
        ),
        (
            "pre",
            said("llama-bpe"),
            ": 'tokenizer.ggml.pre': expected 'gpt-2' or 'qwen2' (convert the original model again if it is an old file), found 'llama-bpe'",
        ),
        ("tokens", Key::U32(3), ": 'tokenizer.ggml.tokens': expected a list, found 3"),
        (
            "tokens",
            Key::I32s(vec![1; 270]),
            ": 'tokenizer.ggml.tokens': expected a list of texts, found a list of 270",
        ),
        (
            "token_type",
            Key::I32s(vec![1; 3]),
            ": 'tokenizer.ggml.token_type': expected a list of 270 kinds from 1 to 6, one per token, found a list of 3",
        ),
        (
            "token_type",
            Key::I32s(vec![9; 270]),
            ": 'tokenizer.ggml.token_type': expected a list of 270 kinds from 1 to 6, one per token, found a list of 270",
        ),
        (
            "merges",
            Key::Texts(vec!["th".to_owned()]),
            ": 'tokenizer.ggml.merges' number 0: expected two tokens with a space between them that make a third, found 'th'",
        ),
        (
            "merges",
            Key::Texts(vec!["t h".to_owned(), "t q".to_owned()]),
            ": 'tokenizer.ggml.merges' number 1: expected two tokens with a space between them that make a third, found 't q'",
        ),
        (
            "eos_token_id",
            Key::U32(270),
            ": 'tokenizer.ggml.eos_token_id': expected a token id below 270, the number of tokens, found 270",
        ),
        (
            "add_bos_token",
            Key::Flag(true),
            ": 'tokenizer.ggml.add_bos_token': expected false (prompts are taken as they come; no token is put before them), found true",
        ),
        (
            "tokens",
            Key::Texts([tokens()[..8].to_vec(), tokens()[..8].to_vec()].concat()),
            ": 'tokenizer.ggml.token_type': expected a list of 16 kinds from 1 to 6, one per token, found a list of 270",
        ),
    ] {
        check(qwen3(), |file| drop(file.keys.insert(format!("tokenizer.ggml.{key}"), value)), message);
    }
}

#[test]
fn wrong_tokens() {
    let tokens = || match &qwen3().keys["tokenizer.ggml.tokens"] {
        Key::Texts(tokens) => tokens.clone(),
        _ => Vec::new(),
    };
    let twice = |file: &mut File| {
        let mut tokens = tokens();
        tokens[9] = tokens[5].clone();
        file.keys.insert("tokenizer.ggml.tokens".to_owned(), Key::Texts(tokens));
    };
    check(qwen3(), twice, ": the tokens 5 and 9 are both '&'");
    let message = ": 'tokenizer.ggml.tokens': expected a list of texts, found nothing";
    check(qwen3(), without("tokenizer.ggml.tokens"), message);
    let more = |file: &mut File| {
        let tokens = [tokens(), vec!["one more".to_owned()]].concat();
        file.keys.insert("tokenizer.ggml.token_type".to_owned(), Key::I32s(vec![1; tokens.len()]));
        file.keys.insert("tokenizer.ggml.tokens".to_owned(), Key::Texts(tokens));
    };
    let message = " has ids up to 270, but the model's vocabulary is 270; tokenizer and weights belong to different models";
    check(qwen3(), more, message);
}

#[test]
fn wrong_tensors() {
    check(
        qwen3(),
        |file| drop(file.tensors.remove("blk.1.ffn_up.weight")),
        " has no tensor 'blk.1.ffn_up.weight'; the most similar names are blk.0.ffn_up.weight, blk.1.ffn_down.weight, blk.1.ffn_gate.weight",
    );
    let replace = |name: &'static str, kind: u32, shape: &'static [usize], bytes: usize| {
        move |file: &mut File| {
            let tensor = Tensor { kind, shape: shape.to_vec(), bytes: vec![0; bytes], is_turned: false };
            file.tensors.insert(name.to_owned(), tensor);
        }
    };
    check(
        gpt2(),
        replace("blk.0.ffn_up.weight", 0, &[12, 37], 12 * 37 * 4),
        ": tensor 'blk.0.ffn_up.weight': its metadata implies the shape [37, 12], found [12, 37]",
    );
    check(
        gpt2(),
        replace("blk.0.attn_qkv.bias", 28, &[36], 36 * 8),
        ": tensor 'blk.0.attn_qkv.bias': expected one of F32, F16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K, Q6_K, BF16, found F64",
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_broken_byte_panics(which in any::<bool>(), changes in prop::collection::vec((any::<prop::sample::Index>(), prop_oneof![any::<u8>(), 0..14u8]), 1..6), keep in any::<prop::sample::Index>(), cut in 0..6) {
        let file = if which { gpt2() } else { qwen3() };
        let mut content = file.bytes();
        let data: usize = file.tensors.values().map(|tensor| tensor.bytes.len()).sum();
        // Most of a file is numbers, where nothing can go wrong: aim at the header.
        let aim = content.len() - data;
        for (at, byte) in changes {
            content[at.index(aim)] = byte;
        }
        if cut == 0 {
            content.truncate(keep.index(content.len()));
        }
        drop(load(content));
    }

    #[test]
    fn no_setting_panics(which in any::<bool>(), at in any::<prop::sample::Index>(), number in prop_oneof![any::<u32>(), 0..20u32], kind in 0..7) {
        let mut file = if which { gpt2() } else { qwen3() };
        let keys: Vec<String> = file.keys.keys().cloned().collect();
        let value = match kind {
            0 => Key::U32(number),
            1 => Key::I32(number.cast_signed()),
            2 => Key::F32(f32::from_bits(number)),
            3 => Key::Flag(number.is_multiple_of(2)),
            4 => Key::Text(number.to_string()),
            5 => Key::Texts(vec![number.to_string(); 3]),
            _ => Key::I32s(vec![number.cast_signed(); 270]),
        };
        file.keys.insert(at.get(&keys).clone(), value);
        drop(load(file.bytes()));
    }
}
