//! Folders of models that generate, read as they are to be embedded with.

use serde_json::{Value, json};
use tensor::{Isa, KvArena};

use crate::batch::Batch;
use crate::{Embedder, Gathering, LoadOptions, LoadedModel, Pooling, Repository, Scaling};

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/test_data/qwen3/model");

const OWN: [&str; 6] = [
    "config.json",
    "tokenizer.json",
    "model.safetensors.index.json",
    "model-00001-of-00003.safetensors",
    "model-00002-of-00003.safetensors",
    "model-00003-of-00003.safetensors",
];

/// The recorded model with other files beside it, or in place of its own.
fn load(more: &[(&'static str, Value)]) -> Result<LoadedModel, String> {
    let own = OWN.into_iter().filter(|name| more.iter().all(|(other, _)| other != name));
    let mut files: Vec<(&'static str, &'static [u8])> =
        own.map(|name| (name, &*std::fs::read(format!("{MODEL}/{name}")).unwrap().leak())).collect();
    files.extend(more.iter().map(|(name, json)| (*name, &*json.to_string().into_bytes().leak())));
    let options = LoadOptions { dtype: None, quantise: None, kv: None, max_batch_tokens: 32, max_outputs: 4 };
    let repository = Repository::embedded("tiny", files.leak());
    crate::load(&repository, &options, tensor::kernels(Isa::best(), 1)).map_err(|error| error.to_string())
}

fn modules(kinds: &[&str]) -> Value {
    let path = |kind: &str| if kind == "Pooling" { "1_Pooling" } else { "" };
    kinds.iter().map(|kind| json!({"type": format!("x.{kind}"), "path": path(kind)})).collect()
}

#[test]
fn what_a_folder_says_of_pooling_is_read_and_nothing_is_said_by_others() {
    let said = |more: &[(&'static str, Value)]| {
        let Embedder { pooling, scaling, reader } = load(more).unwrap().embedder;
        (pooling, scaling, reader.tokenizer.max_tokens())
    };
    let (.., positions) = said(&[]);
    assert_eq!(said(&[]), (None, Scaling::Unit, positions));
    let pooling = ("1_Pooling/config.json", json!({"pooling_mode_lasttoken": true}));
    let all = ("modules.json", modules(&["Transformer", "Pooling", "Normalize"]));
    let length = ("sentence_bert_config.json", json!({"max_seq_length": 9}));
    assert_eq!(said(&[all.clone(), pooling.clone(), length]), (Some(Pooling::Last), Scaling::Unit, 9));
    let bare = ("modules.json", modules(&["Transformer", "Pooling"]));
    assert_eq!(said(&[bare, pooling.clone()]), (Some(Pooling::Last), Scaling::AsIs, positions));
    let dense = ("modules.json", modules(&["Transformer", "Pooling", "Dense"]));
    let refused = load(&[dense, pooling]).map(|_| ()).unwrap_err();
    assert!(refused.contains("expected Transformer, Pooling or Normalize"), "{refused}");
}

#[test]
fn a_token_that_ends_texts_is_put_there_once_also_where_they_are_cut() {
    let mut tokenizer: Value =
        serde_json::from_slice(&std::fs::read(format!("{MODEL}/tokenizer.json")).unwrap()).unwrap();
    let end = tokenizer["added_tokens"][0].clone();
    let (id, name) = (end["id"].as_u64().unwrap() as u32, end["content"].as_str().unwrap());
    let special = json!({"SpecialToken": {"id": name, "type_id": 0}});
    let text = |id: &str| json!({"Sequence": {"id": id, "type_id": 0}});
    let named = Value::Object(
        [(name.to_owned(), json!({"id": name, "ids": [id], "tokens": [name]}))].into_iter().collect(),
    );
    tokenizer["post_processor"] = json!({
        "type": "TemplateProcessing", "single": [text("A"), special], "pair": [text("A"), text("B"), special],
        "special_tokens": named,
    });
    let model = load(&[("tokenizer.json", tokenizer)]).unwrap();
    let plain = model.tokenizer.encode("high water").unwrap();
    assert_ne!(plain.last(), Some(&id), "what is continued is not ended");
    let reader = model.embedder.clone().reader;
    let whole = reader.read("", "high water").unwrap();
    assert_eq!(whole.ids, [&plain[..], &[id]].concat());
    let given = |ids: &[u32]| reader.tokenizer.encode_ids(ids).unwrap().unwrap();
    assert_eq!((given(&plain), given(&whole.ids)), (whole.clone(), whole));
    let cut = model.embedder.within(3).reader.read("", "high water").unwrap();
    assert_eq!((cut.ids.as_slice(), cut.is_truncated()), (&[plain[0], plain[1], id][..], true));
}

#[test]
fn hidden_states_come_in_parts_as_they_come_whole() {
    let mut model = load(&[]).unwrap().model;
    let (shape, ids) = (model.shape(), (5..29).collect::<Vec<u32>>());
    let mut kv = KvArena::new(shape.kv, 1).unwrap();
    let mut batch = Batch::default();
    batch.push(&ids, 0, &[0]);
    batch.want_states(ids.len());
    batch.want_last(2);
    let said = model.forward(&batch, &mut kv);
    assert_eq!(said.logits.len(), 2 * shape.vocabulary);
    let (states, logits) = (said.states.to_vec(), said.logits.to_vec());
    let mut whole = Gathering::new(Pooling::Mean);
    whole.add(&states, shape.hidden);
    for size in [1, 5, 23] {
        let mut kv = KvArena::new(shape.kv, 1).unwrap();
        let (mut parts, mut done, mut last) = (Gathering::new(Pooling::Mean), 0, Vec::new());
        for part in ids.chunks(size) {
            batch.clear();
            batch.push(part, done, &[0]);
            batch.want_states(part.len());
            batch.want_last(1);
            let said = model.forward(&batch, &mut kv);
            assert!(said.states == &states[done * shape.hidden..][..said.states.len()], "{size}");
            parts.add(said.states, shape.hidden);
            last = said.logits.to_vec();
            done += part.len();
        }
        assert!(parts.vector().eq(whole.vector()), "{size}");
        assert_eq!(last, logits[shape.vocabulary..]);
    }
}
