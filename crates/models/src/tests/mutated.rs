//! Folders with random damage: loading may fail and must not panic.

use proptest::prelude::*;
use serde_json::{Value, json};
use tensor::Isa;

use super::hostile::{gpt2, qwen3};

fn json_value() -> impl Strategy<Value = Value> {
    let numbers = proptest::sample::select(vec![
        json!(0),
        json!(-1),
        json!(1),
        json!(2),
        json!(3),
        json!(7),
        json!(270),
        json!(u32::MAX),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(1e308),
        json!(0.5),
        json!(-0.0),
        json!(1 << 20),
        json!((1u64 << 20) + 1),
    ]);
    prop_oneof![
        numbers,
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(|number| json!(number)),
        any::<bool>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        Just(Value::Null),
        Just(json!([])),
        Just(json!([[1, "full_attention"], {}])),
        Just(json!({"rope_theta": {}, "rope_type": 3})),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_config_panics(which in any::<bool>(), changes in proptest::collection::vec((any::<prop::sample::Index>(), json_value()), 1..4)) {
        let mut folder = if which { gpt2() } else { qwen3() };
        let extra = ["rope_scaling", "rope_parameters", "layer_types", "attention_bias", "dtype", "scale_attn_weights"];
        let keys: Vec<String> = folder.config.as_object().unwrap().keys().cloned().chain(extra.map(str::to_owned)).collect();
        for (at, value) in changes {
            folder.config[at.get(&keys)] = value;
        }
        drop(folder.load(None, Isa::Scalar, 1));
    }

    #[test]
    fn no_broken_byte_panics(name in prop::sample::select(&["config.json", "model.safetensors", "tokenizer.json"][..]), changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6), keep in any::<prop::sample::Index>(), cut in 0..4) {
        let mut folder = gpt2();
        let mut content = folder.contents()[name].clone();
        // Most of a checkpoint is numbers, where nothing can go wrong: aim at the header.
        let aim = content.len().min(4000);
        for (at, byte) in changes {
            content[at.index(aim)] = byte;
        }
        if cut == 0 {
            content.truncate(keep.index(content.len()));
        }
        folder.files.insert(name, Some(content));
        drop(folder.load(None, Isa::Scalar, 1));
    }
}
