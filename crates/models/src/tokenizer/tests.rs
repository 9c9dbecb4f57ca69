//! Encoding and decoding with a small tokenizer made by the tests.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::tests::tokenizer_json;

fn tokenizer(changes: serde_json::Value) -> Tokenizer {
    Tokenizer::parse(Path::new(FILE), tokenizer_json(&changes).as_bytes()).unwrap()
}

#[test]
fn special_and_plain_added_tokens() {
    let tokenizer = tokenizer(json!({}));
    let ids = tokenizer.encode("the<|end|><think>all").unwrap();
    assert_eq!(ids, [257, 260, 261, u32::from(b'a') - 33, 259]);
    assert_eq!(tokenizer.decode(&ids, SpecialTokens::Keep), "the<|end|><think>all");
    assert_eq!(tokenizer.decode(&ids, SpecialTokens::Skip), "the<think>all");
    assert_eq!((tokenizer.is_special(260), tokenizer.is_special(261)), (true, false));
    assert_eq!(
        (tokenizer.id("<|end|>"), tokenizer.id("Ġa"), tokenizer.id("nope")),
        (Some(260), Some(258), None)
    );
    assert_eq!((tokenizer.len(), tokenizer.is_empty()), (262, false));
    assert_eq!(tokenizer.encode("").unwrap(), [] as [u32; 0]);
}

#[test]
fn ids_outside_the_vocabulary_stand_for_nothing() {
    let tokenizer = tokenizer(json!({}));
    assert_eq!(tokenizer.bytes(261), b"<think>");
    for id in [262, 300, u32::MAX] {
        assert_eq!(tokenizer.bytes(id), b"");
        assert!(!tokenizer.is_special(id));
    }
    assert_eq!(tokenizer.decode(&[257, 262, u32::MAX, 259], SpecialTokens::Keep), "thell");
}

#[test]
fn truncation_padding_and_dropout_in_the_file_are_turned_off() {
    let text = "the tall wall and all of that ".repeat(20);
    let plain = tokenizer(json!({})).encode(&text).unwrap();
    let mut model: serde_json::Value = serde_json::from_str(&tokenizer_json(&json!({}))).unwrap();
    let mut model = model["model"].take();
    model["dropout"] = json!(0.9);
    let changed = tokenizer(json!({
        "truncation": {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0},
        "padding": {"strategy": {"Fixed": 1000}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0,
                    "pad_type_id": 0, "pad_token": "!"},
        "model": model,
    }));
    assert_eq!(changed.encode(&text).unwrap(), plain);
}

#[test]
fn a_table_of_absurd_size_is_refused() {
    let mut file: serde_json::Value = serde_json::from_str(&tokenizer_json(&json!({}))).unwrap();
    file["model"]["vocab"]["zzz"] = json!(u32::MAX);
    let error = Tokenizer::parse(Path::new(FILE), file.to_string().as_bytes()).err().unwrap().to_string();
    assert_eq!(error, "tokenizer.json: expected ids up to 4194304, found 4294967295");
}

/// Long runs of one kind, which patterns with look-ahead and merges could take forever on.
#[test]
fn long_inputs_are_encoded_whole() {
    let qwen = json!({"pre_tokenizer": {"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"},
         "behavior": "Isolated", "invert": false},
        {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false}]}});
    for changes in [json!({}), qwen] {
        let tokenizer = tokenizer(changes);
        for unit in ["a", " ", "\n", " \n", "th", "!", "é", "7", "<|end|>", "<", "the wall ", "\u{301}"] {
            let text = unit.repeat(200_000 / unit.len()) + "x";
            let ids = tokenizer.encode(&text).unwrap();
            assert!(tokenizer.decode(&ids, SpecialTokens::Keep) == text, "{unit:?}");
        }
    }
}

proptest! {
    #[test]
    fn decoding_returns_the_text(text in "(the |all|<think>|<\\|end\\|>|[a-z]{1,3}|\\PC|\\s|[\u{0}-\u{ff}]){0,20}") {
        let tokenizer = tokenizer(json!({}));
        let ids = tokenizer.encode(&text).unwrap();
        prop_assert_eq!(tokenizer.decode(&ids, SpecialTokens::Keep), text.as_str());
        let (mut stream, mut pieces) = (Utf8Stream::default(), String::new());
        ids.iter().for_each(|id| stream.push(tokenizer.bytes(*id), &mut pieces));
        stream.finish(&mut pieces);
        prop_assert_eq!(pieces, text);
    }
}
