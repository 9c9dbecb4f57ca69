//! The engine on a real architecture: a tiny Qwen3 with random weights, on every instruction set of this machine.

use std::sync::Arc;

use models::tokenizer::SpecialTokens;
use models::{LoadOptions, LoadedModel, Quantisation, Repository};
use protocol::status::Counters;
use protocol::{GenerateRequest, Inference, Prompt};
use serde_json::{Map, Value, json};
use tensor::{Dtype, Isa, KvDtype};

use super::bench::{Bench, Client, ManualClock, Transcript, settings, tokenizer_file, tokens};
use crate::sampler::uniform;
use crate::{Engine, EngineSettings};

const HIDDEN: usize = 48;
const HEADS: usize = 4;
const KV_HEADS: usize = 2;
const DIM: usize = 16;

/// Tokens that a step may try.
const DRAFTS: usize = 6;

/// The tensors of a checkpoint with two layers: names and shapes.
fn shapes() -> Vec<(String, Vec<usize>)> {
    let (inner, vocabulary) = (2 * HIDDEN, 512);
    let mut shapes = vec![
        ("model.embed_tokens.weight".to_owned(), vec![vocabulary, HIDDEN]),
        ("model.norm.weight".to_owned(), vec![HIDDEN]),
    ];
    for layer in 0..2 {
        let parts = [
            ("input_layernorm", vec![HIDDEN]),
            ("post_attention_layernorm", vec![HIDDEN]),
            ("self_attn.q_norm", vec![DIM]),
            ("self_attn.k_norm", vec![DIM]),
            ("self_attn.q_proj", vec![HEADS * DIM, HIDDEN]),
            ("self_attn.k_proj", vec![KV_HEADS * DIM, HIDDEN]),
            ("self_attn.v_proj", vec![KV_HEADS * DIM, HIDDEN]),
            ("self_attn.o_proj", vec![HIDDEN, HEADS * DIM]),
            ("mlp.gate_proj", vec![inner, HIDDEN]),
            ("mlp.up_proj", vec![inner, HIDDEN]),
            ("mlp.down_proj", vec![HIDDEN, inner]),
        ];
        shapes.extend(parts.map(|(name, shape)| (format!("model.layers.{layer}.{name}.weight"), shape)));
    }
    shapes
}

fn checkpoint() -> Vec<u8> {
    let (mut header, mut data) = (Map::new(), Vec::new());
    for (index, (name, shape)) in shapes().into_iter().enumerate() {
        let start = data.len();
        let width = shape[shape.len() - 1] as f64;
        for position in 0..shape.iter().product::<usize>() as u64 {
            let unit = uniform(7, index as u32, position) - 0.5;
            let value = if shape.len() == 1 { 1.0 + unit * 0.2 } else { unit * 4.0 / width.sqrt() };
            data.extend((value as f32).to_le_bytes());
        }
        header.insert(name, json!({"dtype": "F32", "shape": shape, "data_offsets": [start, data.len()]}));
    }
    let header = Value::Object(header).to_string();
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &data].concat()
}

fn repository() -> Repository {
    let config = json!({
        "model_type": "qwen3", "hidden_size": HIDDEN, "num_hidden_layers": 2, "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS, "head_dim": DIM, "intermediate_size": 2 * HIDDEN, "vocab_size": 512,
        "max_position_embeddings": 512, "rms_norm_eps": 1e-6, "rope_theta": 10000, "hidden_act": "silu",
        "tie_word_embeddings": true, "eos_token_id": 511,
    });
    let files = vec![
        ("config.json", &*config.to_string().into_bytes().leak()),
        ("tokenizer.json", &*tokenizer_file().leak()),
        ("model.safetensors", &*checkpoint().leak()),
    ];
    Repository::embedded("tiny", files.leak())
}

/// Type of activations, how weights are quantised, and how keys and values are held.
type Held = (Dtype, Option<Quantisation>, Option<KvDtype>);

fn load(repository: &Repository, ((dtype, quantise, kv), isa, threads): (Held, Isa, usize)) -> LoadedModel {
    let options =
        LoadOptions { dtype: Some(dtype), quantise, kv, max_batch_tokens: 128, max_outputs: 8 + DRAFTS };
    models::load(repository, &options, tensor::kernels(isa, threads)).unwrap()
}

fn requests() -> Vec<GenerateRequest> {
    (0..9u32)
        .map(|i| {
            // Every third one repeats itself, and is continued greedily.
            let period = if i % 3 == 0 { 5 } else { 500 };
            let prompt = (0..3 + i * 11).map(|p| (p % period * 37 + i * 101) % 500).collect();
            let mut request = GenerateRequest { logprobs: Some(2), ..tokens(prompt, 20 + i) };
            request.sampling.temperature = Some([0.0, 0.8, 1.2][i as usize % 3]);
            request.sampling.top_k = Some([0, 20, 0][i as usize % 3]);
            request.sampling.top_p = Some([1.0, 0.9, 0.95][i as usize % 3]);
            request.sampling.repetition_penalty = Some([1.0, 1.1][i as usize % 2]);
            request.sampling.seed = Some(u64::from(i));
            request.limits.ignore_eos = true;
            request.choices = 1 + i % 2;
            request
        })
        .collect()
}

fn bench(model: LoadedModel, settings: EngineSettings) -> Bench {
    let clock = Arc::new(ManualClock::default());
    let (engine, run_loop) = Engine::assemble(model, settings, clock.clone()).unwrap();
    Bench { engine, run_loop, clock }
}

/// Serves one after the other.
fn apart(mut bench: Bench, requests: &[GenerateRequest]) -> Vec<Transcript> {
    let one = |request: &GenerateRequest| {
        let client = bench.ask(request.clone()).unwrap();
        bench.finish();
        client.transcript()
    };
    requests.iter().map(one).collect()
}

/// Serves all at once, each coming a step after the one before.
fn together(mut bench: Bench, requests: &[GenerateRequest]) -> (Vec<Transcript>, Counters) {
    let arrive = |request: &GenerateRequest| {
        bench.step();
        bench.ask(request.clone()).unwrap()
    };
    let clients: Vec<Client> = requests.iter().map(arrive).collect();
    bench.finish();
    let counters = bench.engine.status().counters;
    (clients.into_iter().map(Client::transcript).collect(), counters)
}

#[test]
fn batch_equals_single_bitwise_on_every_instruction_set_and_dtype() {
    let (repository, requests) = (repository(), requests());
    for isa in Isa::available() {
        for held in [
            (Dtype::F32, None, None),
            (Dtype::Bf16, None, None),
            (Dtype::Bf16, None, Some(KvDtype::Int8)),
            (Dtype::Bf16, Some(Quantisation::INT8), None),
            (Dtype::F32, Some(Quantisation::INT4), None),
            (Dtype::Bf16, Some(Quantisation::INT4_G128), Some(KvDtype::Int8)),
        ] {
            let model = load(&repository, (held, isa, 1));
            let precision = model.precision();
            let alone = apart(bench(model, settings(64, 128, 8)), &requests);
            assert!(alone.iter().all(|heard| heard.said.iter().all(|said| said.tokens.len() >= 20)));
            for (pages, batch, sequences, drafts, threads) in
                [(64, 128, 8, DRAFTS, 2), (64, 8, 8, 0, 1), (9, 23, 8, DRAFTS, 2), (12, 1, 1, 0, 1)]
            {
                let model = load(&repository, (held, isa, threads));
                let settings = EngineSettings { drafts, ..settings(pages, batch, sequences) };
                let (heard, counters) = together(bench(model, settings), &requests);
                assert_eq!(heard, alone, "{isa} {precision} pages={pages} batch={batch} threads={threads}");
                assert_eq!(counters.preemptions > 0, pages == 9);
                assert_eq!(counters.draft_hits > 0, drafts > 0, "{isa} {precision} pages={pages}");
            }
        }
    }
}

#[test]
fn text_goes_in_and_comes_out() {
    let model = load(&repository(), ((Dtype::F32, None, None), Isa::best(), 1));
    let tokenizer = model.tokenizer.clone();
    let mut request = tokens(vec![], 16);
    request.prompt = Prompt::Text("Once upon a tide".to_owned());
    let heard = apart(bench(model, settings(16, 64, 4)), &[request]);
    let said = &heard[0].said[0];
    assert_eq!(said.text, tokenizer.decode(&said.tokens, SpecialTokens::Skip));
}
