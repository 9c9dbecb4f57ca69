//! Settings of the architecture and of sampling, as config.json would say them.

use serde_json::{Map, Value as Json};
use tensor::gguf::{Gguf, Value};

use super::{Dialect, family, tokens, wrong};
use crate::ModelError;
use crate::config::Config;

/// Sampling that the makers of the model recommend: in generation_config.json, and in metadata.
const SAMPLING: [(&str, &str); 5] = [
    ("temperature", "general.sampling.temp"),
    ("top_k", "general.sampling.top_k"),
    ("top_p", "general.sampling.top_p"),
    ("min_p", "general.sampling.min_p"),
    ("repetition_penalty", "general.sampling.penalty_repeat"),
];

/// The most numbers of a list that are looked at.
const LONGEST_LIST: usize = 4096;

/// The file's settings under the keys of config.json. What folders say there and GGUF files imply by their tensors and
/// tokens is filled in: the vocabulary, whether the embedding is the head too, whether there are biases, and the tokens
/// that end a text.
pub(crate) fn config(file: &Gguf) -> Result<Config, ModelError> {
    let (family, dialect) = family(file)?;
    require_whole(file)?;
    let mut written: Vec<(&'static str, String)> =
        SAMPLING.iter().map(|(key, stored)| (*key, (*stored).to_owned())).collect();
    let own = |key: &str| format!("{}.{key}", dialect.architecture);
    written.extend(dialect.settings.iter().map(|(key, stored)| (*key, own(stored))));

    let mut root = Map::new();
    for (_, stored) in &written {
        if let Some(value) = file.metadata().get(stored).filter(|value| !says_nothing(stored, value)) {
            root.insert(stored.clone(), json(value));
        }
    }
    require_equal(file, dialect)?;
    require_plain_rope(file, dialect)?;
    fill_head_width(&mut root, &own);

    let tensors = file.tensors();
    let embedding = tensors.entries().find(|(name, ..)| *name == "token_embd.weight");
    let rows = embedding.and_then(|(_, _, shape)| shape.first().copied());
    let count = tokens::count(file)?;
    root.insert("model_type".to_owned(), family.model_types[0].into());
    root.insert("vocab_size".to_owned(), rows.unwrap_or(count).into());
    root.insert("tie_word_embeddings".to_owned(), tensors.kind("output.weight").is_none().into());
    root.insert("attention_bias".to_owned(), tensors.kind("blk.0.attn_q.bias").is_some().into());
    root.insert("eos_token_id".to_owned(), tokens::ends(file)?.into());
    if let Some(first) = tokens::first(file)? {
        root.insert("bos_token_id".to_owned(), first.into());
    }
    Ok(Config::flat(file.path().to_owned(), root, written))
}

/// Refuses a file that is only a part of a checkpoint.
fn require_whole(file: &Gguf) -> Result<(), ModelError> {
    match file.metadata().get("split.count") {
        None | Some(Value::Unsigned(0 | 1)) => Ok(()),
        Some(parts) => {
            let expected = "1 (a whole checkpoint; `llama-gguf-split --merge` joins parts)";
            Err(wrong(file, "split.count", expected, parts))
        }
    }
}

/// Whether a value is the way in which files say that they do not use a setting.
fn says_nothing(key: &str, value: &Value) -> bool {
    let off = [
        (".rope.scaling.type", Value::Text("none".to_owned())),
        (".attention.sliding_window", Value::Unsigned(0)),
    ];
    off.iter().any(|(end, off)| key.ends_with(end) && value == off)
}

fn require_equal(file: &Gguf, dialect: &Dialect) -> Result<(), ModelError> {
    for (key, other) in dialect.equal {
        let [key, other] = [key, other].map(|key| format!("{}.{key}", dialect.architecture));
        if let (Some(value), Some(as_other)) = (file.metadata().get(&key), file.metadata().get(&other))
            && value != as_other
        {
            let expected = format!("the same as '{other}', which is {}", json(as_other));
            return Err(wrong(file, &key, &expected, value));
        }
    }
    Ok(())
}

/// Refuses positions that are divided by a factor, which files may ask for without naming a kind of scaling.
fn require_plain_rope(file: &Gguf, dialect: &Dialect) -> Result<(), ModelError> {
    let key = format!("{}.rope.scaling.factor", dialect.architecture);
    let kind = file.metadata().get(&format!("{}.rope.scaling.type", dialect.architecture));
    match file.metadata().get(&key) {
        Some(factor) if kind.is_none() && ![Value::Float(0.0), Value::Float(1.0)].contains(factor) => {
            Err(wrong(file, &key, "1 (scaled rope is not supported)", factor))
        }
        _ => Ok(()),
    }
}

/// Fills in the width of a head where it is what the other numbers imply, which is not what config.json implies.
fn fill_head_width(root: &mut Map<String, Json>, own: &impl Fn(&str) -> String) {
    let number = |key: &str| root.get(&own(key)).and_then(Json::as_u64);
    if let (None, Some(width), Some(heads @ 1..)) =
        (number("attention.key_length"), number("embedding_length"), number("attention.head_count"))
    {
        root.insert(own("attention.key_length"), (width / heads).into());
    }
}

/// A value as JSON has it. A number that JSON does not have becomes its name, which no reader takes for a number.
pub(super) fn json(value: &Value) -> Json {
    match value {
        Value::Unsigned(number) => (*number).into(),
        Value::Signed(number) => (*number).into(),
        Value::Float(number) if number.is_finite() => (*number).into(),
        Value::Float(number) => number.to_string().into(),
        Value::Flag(flag) => (*flag).into(),
        Value::Text(text) => text.as_str().into(),
        Value::List(list) if list.len() <= LONGEST_LIST => {
            list.numbers().unwrap_or_default().iter().map(json).collect()
        }
        Value::List(list) => format!("a list of {}", list.len()).into(),
    }
}
