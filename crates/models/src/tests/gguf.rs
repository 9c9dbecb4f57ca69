//! GGUF files: against the folders they were made from, with quantised weights, and wrong ones.

mod file;
mod wrong;

use std::path::{Path, PathBuf};

use serde_json::{Map, json};
use tensor::stored::BlockFormat;
use tensor::{Dtype, Isa, KvArena, PAGE_TOKENS};

use super::batching::{self, ROWS};
use super::folder::{Folder, Random, Stored};
use crate::tokenizer::SpecialTokens;
use crate::{Batch, LoadOptions, LoadedModel, Repository};

use file::File;

/// Files that `tools/gguf/make_models.py` made, with the folders that it made them from.
const CONVERTED: [(&str, &str); 2] = [("gpt2-f32.gguf", "gpt2/model"), ("qwen3-bf16.gguf", "qwen3/model")];

const TEXTS: [&str; 9] = [
    "",
    "The tide comes in twice a day, and twice it goes out.",
    "naïve café — 東京の潮 🌊🌊 e\u{301} \u{e9} İı ß ﬁ ½ Ⅷ",
    "  two  spaces\tand\ttabs\r\n\r\n  lines \n\u{a0}\u{2003}x",
    "it's 12345 o'clock; THEY'LL say 'no' <|end|> <think>why?</think> <|start|>",
    "[PAD340] [UNUSED] <|endoftext|>",
    "क्षत्रिय \u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467} 한국어 각 العربية",
    "!!!???...,,,---===+++ 3.14159e-10 a_b::c->d //x\n\n\n",
    "\u{0}\u{1}\u{7f}\u{ad}\u{feff}\u{10ffff}",
];

fn test_data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("test_data")
}

fn load(repository: &Repository, dtype: Option<Dtype>, isa: Isa) -> LoadedModel {
    let options = LoadOptions { dtype, quantise: None, kv: None, max_batch_tokens: 64, max_outputs: 64 };
    crate::load(repository, &options, tensor::kernels(isa, 1)).unwrap()
}

/// Bits of the logits of every row of one sequence.
fn logits(loaded: &mut LoadedModel, ids: &[u32]) -> Vec<u32> {
    let mut kv = KvArena::new(loaded.model.shape().kv, 4).unwrap();
    let mut batch = Batch::default();
    batch.push(ids, 0, &(0..ids.len().div_ceil(PAGE_TOKENS) as u32).collect::<Vec<_>>());
    batch.outputs.extend(0..ids.len() as u32);
    loaded.model.forward(&batch, &mut kv).logits.iter().map(|logit| logit.to_bits()).collect()
}

fn converted() -> impl Iterator<Item = [Repository; 2]> {
    CONVERTED
        .iter()
        .map(|pair| <[&str; 2]>::from(*pair).map(|name| Repository::open(test_data().join(name)).unwrap()))
}

#[test]
fn converted_models_have_the_logits_of_their_folders() {
    for [file, folder] in converted() {
        for isa in [Isa::Scalar, Isa::best()] {
            for dtype in [None, Some(Dtype::F32), Some(Dtype::Bf16)] {
                let [mut file, mut folder] = [load(&file, dtype, isa), load(&folder, dtype, isa)];
                assert_eq!((file.family, file.dtype), (folder.family, folder.dtype));
                assert_eq!(file.model.shape(), folder.model.shape());
                assert_eq!(file.generation, folder.generation);
                let ids: Vec<u32> = (0..60).map(|i| i * i * 7 % 318).collect();
                assert!(
                    logits(&mut file, &ids) == logits(&mut folder, &ids),
                    "{} {isa} {dtype:?}",
                    file.family
                );
            }
        }
    }
}

#[test]
fn converted_models_have_the_tokens_of_their_folders() {
    for [file, folder] in converted() {
        let [file, folder] = [file, folder].map(|repository| load(&repository, None, Isa::Scalar).tokenizer);
        assert_eq!(file.len(), folder.len());
        for text in TEXTS {
            let ids = folder.encode(text).unwrap();
            assert_eq!(file.encode(text).unwrap(), ids, "{text:?}");
            for special in [SpecialTokens::Keep, SpecialTokens::Skip] {
                assert_eq!(file.decode(&ids, special), folder.decode(&ids, special), "{text:?}");
            }
        }
        for id in 0..350 {
            assert_eq!(
                (file.bytes(id), file.is_special(id)),
                (folder.bytes(id), folder.is_special(id)),
                "{id}"
            );
        }
    }
}

#[test]
fn converted_models_have_the_chat_template_of_their_folders() {
    let messages = json!([{"role": "note", "content": "x"}, {"role": "user", "content": "Hi <b>&'\""},
                          {"role": "assistant", "content": "<think>hm</think>\n\nHo"}]);
    let Some(options) = json!({"tools": [{"name": "tide"}], "think": true}).as_object().cloned() else {
        panic!()
    };
    for [file, folder] in converted() {
        let [file, folder] =
            [file, folder].map(|repository| load(&repository, None, Isa::Scalar).chat_template.unwrap());
        for options in [&Map::new(), &options] {
            let rendered = folder.render(&messages, options).unwrap();
            assert!(rendered.contains("<|end|>"), "{rendered}");
            assert_eq!(file.render(&messages, options).unwrap(), rendered);
        }
    }
}

#[test]
fn a_file_is_called_by_its_name() {
    let names: Vec<String> = converted().flat_map(|pair| pair.map(|repository| repository.name())).collect();
    assert_eq!(names, ["gpt2-f32", "model", "qwen3-bf16", "model"]);
}

/// Writes every matrix of the model that is wide enough as random blocks, in the formats by turns, and puts what they
/// stand for into the folder.
fn quantise(folder: &mut Folder, formats: &[BlockFormat]) -> File {
    let mut file = File::of(folder);
    let mut random = Random(formats[0] as u64);
    let mut formats = formats.iter().copied().cycle();
    for (name, tensor) in &mut folder.tensors {
        let stored = file.tensor_mut(name);
        let fits = |format: &BlockFormat| stored.shape[1].is_multiple_of(format.elements());
        if tensor.shape.len() == 2
            && !name.contains("wpe")
            && let Some(format) = formats.next().filter(fits)
        {
            stored.random_blocks(format, &mut random);
        }
        let values = stored.view(name).to_f32();
        let is_turned = stored.is_turned;
        *tensor = match tensor.shape[..] {
            [inputs, outputs] if is_turned => {
                let at = |i: usize| values[i % outputs * inputs + i / outputs];
                Stored { shape: vec![inputs, outputs], values: (0..values.len()).map(at).collect() }
            }
            _ => Stored { shape: tensor.shape.clone(), values },
        };
    }
    file
}

/// Every format alone, and all of them in one model, so that most stacked layers have parts of several.
fn mixtures() -> impl Iterator<Item = Vec<BlockFormat>> {
    let mut all = BlockFormat::ALL.to_vec();
    all.rotate_left(3);
    BlockFormat::ALL.into_iter().map(|format| vec![format]).chain([all])
}

fn folders(formats: &[BlockFormat]) -> [Folder; 2] {
    let width = formats.iter().map(|format| format.elements()).max().unwrap_or_default().max(64);
    let tied = json!({"tie_word_embeddings": formats[0].bits() == 4});
    [Folder::gpt2(width, 4, "", 3), Folder::qwen3([width, 4, 2, width / 4], tied, 4)]
}

#[test]
fn quantised_models_have_the_logits_of_what_their_blocks_stand_for() {
    let ids: Vec<u32> = (0..9).map(|i| i * i * 7 % 250).collect();
    for formats in mixtures() {
        for mut folder in folders(&formats) {
            let file = quantise(&mut folder, &formats).repository();
            for dtype in [Dtype::F32, Dtype::Bf16] {
                let mut widened = folder.load(Some(dtype), Isa::best(), 1).unwrap();
                let mut same = load(&file, Some(dtype), Isa::best());
                assert!(logits(&mut same, &ids) == logits(&mut widened, &ids), "{formats:?} {}", same.family);
                assert_eq!((same.dtype, same.precision()), (dtype, dtype.to_string()));
            }
        }
    }
}

#[test]
fn blocks_that_are_kept_cost_no_accuracy_and_less_memory() {
    let ids: Vec<u32> = (0..40).map(|i| i * i * 7 % 250).collect();
    for formats in mixtures() {
        for mut folder in folders(&formats) {
            let mut file = quantise(&mut folder, &formats);
            let values = |loaded: &mut LoadedModel| -> Vec<f64> {
                logits(loaded, &ids).into_iter().map(|bits| f64::from(f32::from_bits(bits))).collect()
            };
            let mut widened = folder.load(Some(Dtype::F32), Isa::best(), 1).unwrap();
            let expected = values(&mut widened);
            let largest = expected.iter().fold(1.0, |largest: f64, logit| largest.max(logit.abs()));
            let kept = load(&file.clone().repository(), None, Isa::best());
            assert_eq!(kept.dtype, Dtype::Bf16);
            let [bytes, more] = [&kept, &widened].map(|loaded| loaded.model.shape().weight_bytes);
            assert!(bytes < more, "{formats:?}: {bytes} and {more} bytes");
            if let [format] = formats[..] {
                assert_eq!(kept.precision(), format.to_string());
            }

            // A file whose largest matrix is F32 computes in f32, where only other orders of the same sums are left.
            let spare = file
                .tensor_mut(
                    folder
                        .tensors
                        .keys()
                        .find(|name| name.contains("norm") || name.contains("ln_f"))
                        .unwrap(),
                )
                .clone();
            let bytes = vec![0; 4 << 20];
            file.tensors.insert("spare".to_owned(), file::Tensor { shape: vec![1024, 1024], bytes, ..spare });
            let mut kept = load(&file.repository(), None, Isa::best());
            assert_eq!(kept.dtype, Dtype::F32);
            let found = values(&mut kept);
            let off = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max) / largest;
            assert!(off < 2e-4, "{formats:?} {}: {off}", kept.family);
        }
    }
}

#[test]
fn kept_blocks_in_batches_equal_kept_blocks_alone() {
    for formats in mixtures() {
        for mut folder in folders(&formats) {
            let file = quantise(&mut folder, &formats).repository();
            for isa in Isa::available() {
                let options = LoadOptions {
                    dtype: None,
                    quantise: None,
                    kv: None,
                    max_batch_tokens: ROWS,
                    max_outputs: ROWS,
                };
                let mut kept = crate::load(&file, &options, tensor::kernels(isa, 2)).unwrap();
                batching::equals_single(&mut *kept.model, 2, &format!("{formats:?} on {isa}"));
            }
        }
    }
}
