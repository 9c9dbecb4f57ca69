//! What quantised weights, keys and values cost in perplexity, on the trained model that is part of the program.

use std::path::Path;

use models::{Batch, LoadOptions, Quantisation, Repository};
use tensor::{Dtype, Isa, KvArena, KvDtype, PAGE_TOKENS, Scheme};

/// Documents that training skipped, as the model reads them: made by `tools/embedded_chat` (`documents(7071, 60,
/// held_out=True)`, rendered).
const HELD_OUT: &str = include_str!("../test_data/held_out.json");

/// The turns of a document, and how many bytes at the head of each are given: those of the user, and the name of who
/// speaks. The rest is for the model to write; a text without turns is so as a whole.
fn pieces(document: &str) -> impl Iterator<Item = (String, usize)> {
    document.split_inclusive("<|im_end|>\n").map(|piece| {
        let written = match piece.strip_prefix("<|im_start|>") {
            None => piece.len(),
            Some(turn) => turn.strip_prefix("assistant\n").map_or(0, str::len),
        };
        (piece.to_owned(), piece.len() - written)
    })
}

/// `exp` of the mean negative log-probability of the tokens that the model is to write.
fn perplexity(quantise: Option<Quantisation>, kv: Option<KvDtype>) -> f64 {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("embedded/tidegate-tiny");
    let options =
        LoadOptions { dtype: Some(Dtype::Bf16), quantise, kv, max_batch_tokens: 1024, max_outputs: 1024 };
    let kernels = tensor::kernels(Isa::best(), 1);
    let mut loaded = models::load(&Repository::open(folder).expect("a folder"), &options, kernels)
        .expect("the model loads");
    let shape = loaded.model.shape();
    let documents: Vec<String> = serde_json::from_str(HELD_OUT).expect("a list of texts");
    let (mut nats, mut tokens) = (0.0, 0);
    for document in &documents {
        let (mut ids, mut written) = (Vec::new(), Vec::new());
        for (piece, given) in pieces(document) {
            let (given, rest) = piece.split_at(given);
            ids.extend(loaded.tokenizer.encode(given).expect("text"));
            let first = ids.len().max(1);
            ids.extend(loaded.tokenizer.encode(rest).expect("text"));
            written.extend(first..ids.len());
        }
        let pages: Vec<u32> = (0..ids.len().div_ceil(PAGE_TOKENS) as u32).collect();
        let mut arena = KvArena::new(shape.kv, pages.len()).expect("memory");
        let mut batch = Batch::default();
        batch.push(&ids, 0, &pages);
        batch.outputs.extend(written.iter().map(|&at| at as u32 - 1));
        let logits = loaded.model.forward(&batch, &mut arena).logits;
        for (row, &at) in logits.chunks(shape.vocabulary).zip(&written) {
            let highest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let sum: f64 = row.iter().map(|&logit| f64::from(logit - highest).exp()).sum();
            nats -= f64::from(row[ids[at] as usize] - highest) - sum.ln();
            tokens += 1;
        }
    }
    assert!(tokens > 3000, "{tokens} tokens say little");
    (nats / f64::from(tokens)).exp()
}

#[test]
fn quantised_weights_cost_little_perplexity() {
    let bf16 = perplexity(None, None);
    assert!((1.0..4.0).contains(&bf16), "the model knows these texts: {bf16}");
    let check = |quantise: Quantisation, most: f64| {
        let found = perplexity(Some(quantise), None);
        let change = found / bf16 - 1.0;
        println!("{quantise:?}: {found:.4} instead of {bf16:.4}, {:+.3} %", 100.0 * change);
        assert!(change.abs() < most, "{quantise:?}: {found} instead of {bf16}");
    };
    check(Quantisation::INT8, 0.005);
    check(Quantisation::INT4, 0.03);
    check(Quantisation::INT4_G128, 0.06);
    // The projection to the vocabulary in 8 bits costs a small part of what the blocks cost.
    check(Quantisation { head: None, ..Quantisation::INT8 }, 0.005);
    check(Quantisation { head: None, ..Quantisation::INT4 }, 0.03);
    check(Quantisation { head: Some(Scheme::INT4), ..Quantisation::INT4 }, 0.04);
}

#[test]
fn keys_and_values_of_8_bits_cost_next_to_nothing() {
    for quantise in [None, Some(Quantisation::INT8)] {
        let (bf16, int8) = (perplexity(quantise, None), perplexity(quantise, Some(KvDtype::Int8)));
        println!("{quantise:?}: {int8:.4} instead of {bf16:.4}, {:+.3} %", 100.0 * (int8 / bf16 - 1.0));
        assert!(int8 != bf16, "keys and values are held in another way");
        assert!((int8 / bf16 - 1.0).abs() < 0.001, "{quantise:?}: {int8} instead of {bf16}");
    }
}
