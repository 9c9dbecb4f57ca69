//! A quantised folder opens as what quantising at load makes, and appears whole or not at all.

use std::cell::Cell;
use std::fs;
use std::ops::ControlFlow;
use std::path::PathBuf;

use proptest::prelude::*;
use serde_json::{Value, json};
use tensor::{Dtype, Isa, KvArena};

use super::{Existing, KEY, QuantisedFolder, quantise};
use crate::cache::{CacheError, tests::Place};
use crate::tests::folder::Folder;
use crate::{Batch, LoadOptions, LoadedModel, ModelError, Quantisation, Repository, Unwatched, Watch};

const ALL: [Quantisation; 3] = [Quantisation::INT8, Quantisation::INT4, Quantisation::INT4_G128];

/// Widths that are odd, and no multiples of words or groups.
fn folders() -> [Folder; 4] {
    [
        Folder::gpt2(36, 3, "", 1),
        Folder::gpt2(33, 3, "transformer.", 2),
        Folder::qwen3([50, 4, 2, 12], json!({"tie_word_embeddings": true, "attention_bias": true}), 3),
        Folder::qwen3([160, 2, 1, 34], json!({"tie_word_embeddings": false}), 4),
    ]
}

fn load(repository: &Repository, quantise: Option<Quantisation>) -> Result<LoadedModel, ModelError> {
    let dtype = quantise.map(|_| Dtype::Bf16);
    let options = LoadOptions { dtype, quantise, kv: None, max_batch_tokens: 16, max_outputs: 16 };
    crate::load(repository, &options, tensor::kernels(Isa::best(), 2))
}

fn logits(loaded: &mut LoadedModel) -> Vec<u32> {
    let mut kv = KvArena::new(loaded.model.shape().kv, 1).unwrap();
    let mut batch = Batch::default();
    batch.push(&[3, 1, 4, 1, 5], 0, &[0]);
    batch.outputs.extend(0..5);
    loaded.model.forward(&batch, &mut kv).logits.iter().map(|logit| logit.to_bits()).collect()
}

fn written(
    repository: &Repository,
    quantisation: Quantisation,
    out: &std::path::Path,
    existing: Existing,
) -> Result<(), ModelError> {
    let kernels = tensor::kernels(Isa::Scalar, 1);
    quantise(repository, QuantisedFolder { quantisation, out, existing }, kernels, &Unwatched)
}

#[test]
fn a_quantised_folder_gives_the_bits_of_quantising_at_load() {
    let place = Place::new();
    for (number, folder) in folders().into_iter().enumerate() {
        let repository = folder.repository();
        for (at, quantisation) in ALL.into_iter().enumerate() {
            let out = place.0.join(format!("{number}-{at}"));
            written(&repository, quantisation, &out, Existing::Keep).unwrap();
            let mut expected = load(&repository, Some(quantisation)).unwrap();
            for asked in [None, Some(quantisation)] {
                let mut found = load(&Repository::open(&out).unwrap(), asked).unwrap();
                assert!(logits(&mut found) == logits(&mut expected), "{number} {quantisation:?}");
                assert_eq!(found.model.shape(), expected.model.shape());
                assert_eq!((found.holding, found.dtype), (expected.holding, expected.dtype));
                assert_eq!(found.generation, expected.generation);
            }
        }
    }
}

#[test]
fn a_quantised_folder_is_held_as_it_is() {
    let place = Place::new();
    let out = place.0.join("int8");
    written(&folders()[0].repository(), Quantisation::INT8, &out, Existing::Keep).unwrap();
    let repository = Repository::open(&out).unwrap();
    let said = load(&repository, Some(Quantisation::INT4)).err().unwrap().to_string();
    assert!(said.contains("is quantised already (int8): leave out --dtype"), "{said}");
    let said = written(&repository, Quantisation::INT4, &place.0.join("x"), Existing::Keep).unwrap_err();
    assert!(said.to_string().contains("is quantised already (int8)"), "{said}");

    let config = fs::read(out.join("config.json")).unwrap();
    let check = |key: &str, value: Value, part: &str| {
        let mut changed: Value = serde_json::from_slice(&config).unwrap();
        changed[KEY][key] = value;
        fs::write(out.join("config.json"), changed.to_string()).unwrap();
        let said = load(&repository, None).err().unwrap().to_string();
        assert!(said.contains(part), "{said}");
    };
    check("quant_method", json!("gptq"), "quantization_config.quant_method': expected 'tidegate'");
    check("version", json!(2), "a newer program wrote it");
    check("dtype", json!("int3"), "expected int8, int4 or int4-g128, found 'int3'");
    check("dtype", json!("int4"), "with 'h.0.attn.c_attn.weight.scales' beside it");
}

/// Stops after so many calls.
struct Impatient(Cell<u32>);

impl Watch for Impatient {
    fn packed(&self, _done: u64, _total: u64) -> ControlFlow<()> {
        self.0.set(self.0.get().saturating_sub(1));
        if self.0.get() == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn cache_failed(&self, _error: &CacheError) {}
}

#[test]
fn what_is_there_stays_and_what_was_begun_goes() {
    let place = Place::new();
    let repository = folders()[2].repository();
    let listing = || -> Vec<PathBuf> {
        let mut paths: Vec<_> = fs::read_dir(&place.0).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths
    };
    let (out, other) = (place.0.join("out"), place.0.join("other"));
    let folder = QuantisedFolder { quantisation: Quantisation::INT8, out: &out, existing: Existing::Keep };
    let kernels = tensor::kernels(Isa::Scalar, 1);
    let stopped = quantise(&repository, folder, kernels, &Impatient(Cell::new(9)));
    assert!(
        matches!(stopped, Err(ModelError::Stopped)) && listing().is_empty(),
        "{stopped:?} {:?}",
        listing()
    );

    fs::create_dir(&out).unwrap();
    written(&repository, Quantisation::INT8, &out, Existing::Keep).unwrap();
    let said = written(&repository, Quantisation::INT4, &out, Existing::Keep).unwrap_err().to_string();
    assert!(said.ends_with("out is there already; --force replaces it"), "{said}");
    written(&repository, Quantisation::INT4, &out, Existing::Replace).unwrap();
    assert_eq!(load(&Repository::open(&out).unwrap(), None).unwrap().precision(), "int4");

    fs::create_dir(&other).unwrap();
    fs::write(other.join("letter"), "Dear Bob").unwrap();
    let said = written(&repository, Quantisation::INT8, &other, Existing::Replace).unwrap_err().to_string();
    assert!(said.ends_with("is there already and is no model folder; give another name"), "{said}");
    let nowhere = place.0.join("other/letter/x");
    let said = written(&repository, Quantisation::INT8, &nowhere, Existing::Keep).unwrap_err().to_string();
    assert!(said.contains("cannot write") && said.contains("nothing was left behind"), "{said}");
    assert_eq!(listing(), [other, out]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_broken_byte_panics(
        name in prop::sample::select(&["config.json", "model.safetensors"][..]),
        four: bool,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in prop::option::weighted(0.2, any::<prop::sample::Index>()),
    ) {
        let place = Place::new();
        let out = place.0.join("out");
        let quantisation = if four { Quantisation::INT4 } else { Quantisation::INT8 };
        written(&Folder::gpt2(36, 3, "", 1).repository(), quantisation, &out, Existing::Keep).unwrap();
        let mut content = fs::read(out.join(name)).unwrap();
        // Most of the file is numbers, where nothing can go wrong: aim at the header.
        let aim = content.len().min(5000);
        for (at, byte) in changes {
            content[at.index(aim)] = byte;
        }
        if let Some(cut) = cut {
            content.truncate(cut.index(content.len()));
        }
        fs::write(out.join(name), content).unwrap();
        drop(Repository::open(&out).and_then(|repository| load(&repository, None)));
    }
}
