//! A model that sees: pictures in parts and prompts in batches against whole and alone, and settings that are wrong.
//!
//! That its numbers are right is shown by the recorded case beside it, which `cargo xtask fixtures` runs.

use std::sync::Arc;

use serde_json::{Value, json};
use tensor::safetensors::SafeTensors;
use tensor::{Dtype, Isa, KvArena, PAGE_TOKENS};

use super::folder::Random;
use crate::vision::{Features, Frame, Grid, Layout, Pixels, Tower, lay_out};
use crate::{Batch, LoadOptions, LoadedModel, Quantisation, Repository};

const CASE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/test_data/qwen3_vl");

/// The recorded pictures: their names in the arrays and extents.
const PICTURES: [(&str, Grid); 3] =
    [("square", Grid { h: 4, w: 4 }), ("wide", Grid { h: 2, w: 6 }), ("tall", Grid { h: 8, w: 4 })];

fn load(how: (Option<Dtype>, Option<Quantisation>), isa: Isa, threads: usize) -> LoadedModel {
    let (dtype, quantise) = how;
    let options = LoadOptions { dtype, quantise, kv: None, max_batch_tokens: 128, max_outputs: 128 };
    let repository = Repository::folder(format!("{CASE}/model")).unwrap();
    crate::load(&repository, &options, tensor::kernels(isa, threads)).unwrap()
}

fn frames() -> Vec<Frame> {
    let arrays = SafeTensors::open(std::path::Path::new(&format!("{CASE}/expected.safetensors"))).unwrap();
    let of = |(name, grid): (&str, Grid)| {
        let values = arrays.tensor(&format!("{name}.pixel_values")).unwrap().to_f32();
        Frame { grid, pixels: Pixels::Values(Arc::new(values)) }
    };
    PICTURES.into_iter().map(of).collect()
}

/// Reads a picture in parts of as much work as `part` says each time.
fn read(tower: &mut dyn Tower, frame: &Frame, mut part: impl FnMut() -> u64) -> Features {
    tower.begin(frame.clone()).unwrap();
    (0..100_000).find_map(|_| tower.advance(part())).unwrap()
}

#[test]
fn pictures_in_parts_equal_pictures_whole() {
    for isa in Isa::available() {
        for how in [(Some(Dtype::F32), None), (Some(Dtype::Bf16), None), (None, Some(Quantisation::INT4))] {
            let [mut one, mut two] = [1, 2].map(|threads| load(how, isa, threads).vision.unwrap().tower);
            for frame in frames() {
                let whole = read(&mut *one, &frame, || u64::MAX);
                let work = one.work(frame.grid);
                let mut random = Random(work);
                for tower in [&mut one, &mut two] {
                    assert!(read(&mut **tower, &frame, || 1) == whole, "{isa} {how:?}, a few rows at a time");
                    let parts = read(&mut **tower, &frame, || random.next() % work);
                    assert!(parts == whole, "{isa} {how:?}, random parts");
                    // A picture that was given up leaves nothing behind.
                    tower.begin(frames()[0].clone()).unwrap();
                    assert!(tower.advance(1).is_none());
                }
            }
            one.abandon();
            assert!(one.advance(u64::MAX).is_none(), "nothing is left to read");
        }
    }
}

#[test]
fn eight_bits_see_much_the_same() {
    let [mut exact, mut rounded] = [(Some(Dtype::F32), None), (Some(Dtype::F32), Some(Quantisation::INT4))]
        .map(|how| load(how, Isa::best(), 1).vision.unwrap().tower);
    for frame in frames() {
        let [exact, rounded] =
            [&mut exact, &mut rounded].map(|tower| read(&mut **tower, &frame, || u64::MAX));
        for level in 0..exact.levels() {
            let [a, b] = [&exact, &rounded].map(|seen| seen.rows(level, 0..seen.tokens()));
            let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
            let cosine = dot(a, b) / (dot(a, a) * dot(b, b)).sqrt();
            assert!(cosine > 0.999, "level {level}: {cosine}");
        }
    }
}

/// A prompt with the pictures at `shown`, and what the tower has made of them.
fn prompt(loaded: &mut LoadedModel, shown: &[usize], seed: u64) -> (Layout, Vec<Arc<Features>>) {
    let vision = loaded.vision.as_mut().unwrap();
    let mut random = Random(seed);
    let mut ids: Vec<u32> = (0..1 + random.below(20)).map(|_| random.below(300) as u32).collect();
    for _ in shown {
        ids.push(vision.marks.image);
        ids.extend((0..random.below(9)).map(|_| random.below(300) as u32));
    }
    ids.push(7);
    let frames = frames();
    let grids: Vec<Grid> = shown.iter().map(|&at| frames[at].grid).collect();
    let layout = lay_out(&ids, (&grids, &[]), vision.marks).unwrap();
    let read = shown.iter().map(|&at| Arc::new(read(&mut *vision.tower, &frames[at], || u64::MAX)));
    let features = read.collect();
    (layout, features)
}

/// The logits after every token of prompts that are read together, so many tokens of each a step.
fn logits(
    loaded: &mut LoadedModel,
    prompts: &[(Layout, Vec<Arc<Features>>)],
    chunks: &[usize],
) -> Vec<Vec<u32>> {
    let pages = 128 / PAGE_TOKENS;
    let mut kv = KvArena::new(loaded.model.shape().kv, pages * prompts.len()).unwrap();
    let vocabulary = loaded.model.shape().vocabulary;
    let (mut done, mut rows) = (vec![0; prompts.len()], vec![Vec::new(); prompts.len()]);
    loop {
        let (mut batch, mut owners) = (Batch::default(), Vec::new());
        for (number, (layout, features)) in prompts.iter().enumerate() {
            let taken = chunks[number].min(layout.ids.len() - done[number]).min(128 - owners.len());
            if taken > 0 {
                let tokens = &layout.ids[done[number]..done[number] + taken];
                let table: Vec<u32> = (0..pages).map(|page| (page * prompts.len() + number) as u32).collect();
                let seen = |picture: usize| Arc::clone(&features[picture]);
                batch.push_seen((tokens, layout), seen, done[number], &table);
                owners.extend(std::iter::repeat_n(number, taken));
                done[number] += taken;
            }
        }
        if owners.is_empty() {
            return rows;
        }
        batch.outputs.extend(0..owners.len() as u32);
        let found = loaded.model.forward(&batch, &mut kv).logits;
        for (owner, row) in owners.into_iter().zip(found.chunks(vocabulary)) {
            rows[owner].extend(row.iter().map(|logit| logit.to_bits()));
        }
    }
}

#[test]
fn prompts_with_pictures_in_batches_equal_prompts_alone() {
    let shown: [&[usize]; 5] = [&[0], &[], &[1, 2], &[2, 0, 1], &[1]];
    for isa in Isa::available() {
        for how in [(Some(Dtype::F32), None), (None, None), (None, Some(Quantisation::INT8))] {
            let mut loaded = load(how, isa, 2);
            let prompts: Vec<_> =
                shown.iter().zip(1..).map(|(shown, seed)| prompt(&mut loaded, shown, seed)).collect();
            let mut alone = Vec::new();
            for prompt in &prompts {
                alone.extend(logits(&mut loaded, std::slice::from_ref(prompt), &[128]));
            }
            for chunks in [[1, 1, 1, 1, 1], [5, 2, 40, 7, 3], [128, 1, 3, 33, 9]] {
                assert!(logits(&mut loaded, &prompts, &chunks) == alone, "{isa} {how:?} {chunks:?}");
            }
        }
    }
}

/// Loads the recorded model with a setting changed, and compares the error.
fn refused(key: &str, value: Value, message: &str) {
    let files = [
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "preprocessor_config.json",
        "model.safetensors",
    ];
    let read = |name: &&'static str| (*name, std::fs::read(format!("{CASE}/model/{name}")).unwrap());
    let mut files: Vec<(&'static str, Vec<u8>)> = files.iter().map(read).collect();
    let mut config: Value = serde_json::from_slice(&files[0].1).unwrap();
    match key.split_once('.') {
        Some((section, key)) => config[section][key] = value,
        None => config[key] = value,
    }
    files[0].1 = config.to_string().into_bytes();
    let files = files.into_iter().map(|(name, bytes)| (name, &*bytes.leak()));
    let repository = Repository::embedded("tiny", files.collect::<Vec<_>>().leak());
    let options = LoadOptions { dtype: None, quantise: None, kv: None, max_batch_tokens: 8, max_outputs: 8 };
    let error = crate::load(&repository, &options, tensor::kernels(Isa::Scalar, 1)).err();
    let found = error.map(|error| error.to_string().replace("(embedded)/tiny/config.json: ", ""));
    assert_eq!(found.as_deref(), Some(message), "{key}");
}

#[test]
fn wrong_settings_are_named() {
    let check = |key: &str, value: Value, message: &str| {
        refused(key, value, &format!("'{key}': expected {message}"));
    };
    check("text_config", Value::Null, "an object of settings, found nothing");
    check("vision_config", json!(3), "an object of settings, found 3");
    check("text_config.hidden_size", json!(0), "a whole number from 1 to 1048576, found 0");
    check("image_token_id", json!(340), "a whole number from 0 to 339, found 340");
    check("video_token_id", Value::Null, "a whole number from 0 to 339, found nothing");
    let heads = "a number of heads whose width is a multiple of 4; hidden_size is 16, found 3";
    check("vision_config.num_heads", json!(3), heads);
    check("vision_config.num_position_embeddings", json!(26), "a square number, found 26");
    check("vision_config.out_hidden_size", json!(8), "24, the hidden_size of text_config, found 8");
    check("vision_config.hidden_act", json!("gelu"), "'gelu_pytorch_tanh', found 'gelu'");
    let blocks = "ascending numbers of blocks below 3";
    check("vision_config.deepstack_visual_indexes", json!([2, 3]), &format!("{blocks}, found a list of 2"));
    check("vision_config.deepstack_visual_indexes", json!([1, 0]), &format!("{blocks}, found a list of 2"));
    check("vision_config.spatial_merge_size", json!(0), "a whole number from 1 to 16, found 0");
    check("vision_config.depth", json!(-1), "a whole number from 1 to 4096, found -1");
    let section = |value: Value| {
        let rope = json!({"rope_type": "default", "rope_theta": 5e6, "mrope_interleaved": true, "mrope_section": value});
        refused(
            "text_config.rope_parameters",
            rope,
            "'text_config.rope_parameters.mrope_section': expected three numbers up to 6, half the width of a head, found a list of 2",
        );
    };
    section(json!([2, 2]));
    let rope = json!({"rope_type": "default", "mrope_section": [2, 2, 2], "mrope_interleaved": false});
    let blockwise = "'text_config.rope_parameters.mrope_interleaved': expected true (blockwise multimodal rope is not supported), found false";
    refused("text_config.rope_parameters", rope, blockwise);
}
