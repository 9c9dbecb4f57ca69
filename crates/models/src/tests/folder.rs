//! Tiny model folders made from a seed, in memory.

use std::collections::BTreeMap;

use half::bf16;
use serde_json::{Map, Value, json};
use tensor::{Dtype, Isa, KvDtype};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

use crate::{LoadOptions, LoadedModel, ModelError, Repository};

/// Numbers from a seed (SplitMix64).
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub(super) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// Roughly normal, as large as the root of `variance`, and exact in bf16.
    fn weight(&mut self, variance: f64) -> f32 {
        let sum: f64 = (0..4).map(|_| (self.next() >> 11) as f64 / (1u64 << 53) as f64 - 0.5).sum();
        bf16::from_f64(sum * (3.0 * variance).sqrt()).to_f32()
    }
}

/// A stored tensor before it is written.
#[derive(Clone)]
pub(super) struct Stored {
    pub(super) shape: Vec<usize>,
    pub(super) values: Vec<f32>,
}

/// A model folder in memory.
#[derive(Clone)]
pub(crate) struct Folder {
    pub(super) config: Value,
    pub(super) tensors: BTreeMap<String, Stored>,
    /// Files beside config.json and model.safetensors; `None` removes one of these.
    pub(super) files: BTreeMap<&'static str, Option<Vec<u8>>>,
    random: u64,
}

impl Folder {
    fn new(config: Value, seed: u64) -> Self {
        let files = BTreeMap::from([("tokenizer.json", Some(tokenizer_json(&json!({})).into_bytes()))]);
        Self { config, tensors: BTreeMap::new(), files, random: seed }
    }

    /// A GPT-2 with two layers, stored under names with `prefix`.
    pub(crate) fn gpt2(hidden: usize, heads: usize, prefix: &str, seed: u64) -> Self {
        let (vocabulary, positions, inner, layers) = (VOCABULARY, 96, 3 * hidden + 1, 2);
        let mut folder = Self::new(
            json!({
                "model_type": "gpt2", "n_embd": hidden, "n_head": heads, "n_layer": layers, "n_inner": inner,
                "n_positions": positions, "vocab_size": vocabulary, "layer_norm_epsilon": 1e-5,
                "activation_function": "gelu_new", "eos_token_id": END, "bos_token_id": END,
            }),
            seed,
        );
        folder.matrix(&format!("{prefix}wte.weight"), [vocabulary, hidden], 1.0);
        folder.matrix(&format!("{prefix}wpe.weight"), [positions, hidden], 0.1);
        for layer in 0..layers {
            let at = format!("{prefix}h.{layer}");
            for norm in ["ln_1", "ln_2"] {
                folder.weight_and_bias(&format!("{at}.{norm}"), hidden);
            }
            for (name, inputs, outputs) in [
                ("attn.c_attn", hidden, 3 * hidden),
                ("attn.c_proj", hidden, hidden),
                ("mlp.c_fc", hidden, inner),
                ("mlp.c_proj", inner, hidden),
            ] {
                folder.matrix(&format!("{at}.{name}.weight"), [inputs, outputs], 1.0 / inputs as f64);
                folder.vector(&format!("{at}.{name}.bias"), outputs, 0.0);
            }
            folder.vector(&format!("{at}.attn.masked_bias"), 1, 0.0);
        }
        folder.weight_and_bias(&format!("{prefix}ln_f"), hidden);
        folder
    }

    /// A Qwen3 with two layers; `shape` is hidden size, query heads, key heads, head width. `settings` go to
    /// config.json and decide on biases and tying.
    pub(crate) fn qwen3(shape: [usize; 4], settings: Value, seed: u64) -> Self {
        let [hidden, heads, kv, dim] = shape;
        let inner = 2 * hidden + 3;
        let mut config = json!({
            "model_type": "qwen3", "hidden_size": hidden, "num_hidden_layers": 2,
            "num_attention_heads": heads, "num_key_value_heads": kv, "head_dim": dim, "intermediate_size": inner,
            "vocab_size": VOCABULARY, "max_position_embeddings": 96, "rms_norm_eps": 1e-6, "rope_theta": 10000,
            "hidden_act": "silu", "eos_token_id": [END],
        });
        let (Value::Object(config_map), Value::Object(settings)) = (&mut config, settings) else {
            panic!("settings are an object");
        };
        config_map.extend(settings);
        let layers = config["num_hidden_layers"].as_u64().unwrap();
        let biased = config["attention_bias"] == true;
        let tied = config["tie_word_embeddings"] == true;
        let mut folder = Self::new(config, seed);
        folder.matrix("model.embed_tokens.weight", [VOCABULARY, hidden], 1.0);
        for layer in 0..layers {
            let at = format!("model.layers.{layer}");
            for (name, width) in [
                ("input_layernorm", hidden),
                ("post_attention_layernorm", hidden),
                ("self_attn.q_norm", dim),
                ("self_attn.k_norm", dim),
            ] {
                folder.vector(&format!("{at}.{name}.weight"), width, 1.0);
            }
            for (name, inputs, outputs) in [
                ("self_attn.q_proj", hidden, heads * dim),
                ("self_attn.k_proj", hidden, kv * dim),
                ("self_attn.v_proj", hidden, kv * dim),
                ("self_attn.o_proj", heads * dim, hidden),
                ("mlp.gate_proj", hidden, inner),
                ("mlp.up_proj", hidden, inner),
                ("mlp.down_proj", inner, hidden),
            ] {
                folder.matrix(&format!("{at}.{name}.weight"), [outputs, inputs], 1.0 / inputs as f64);
                if biased && name.starts_with("self_attn") {
                    folder.vector(&format!("{at}.{name}.bias"), outputs, 0.0);
                }
            }
        }
        folder.vector("model.norm.weight", hidden, 1.0);
        if !tied {
            folder.matrix("lm_head.weight", [VOCABULARY, hidden], 1.0 / hidden as f64);
        }
        folder
    }

    fn matrix(&mut self, name: &str, shape: [usize; 2], variance: f64) {
        let mut random = Random(self.random);
        let values = (0..shape[0] * shape[1]).map(|_| random.weight(variance)).collect();
        self.random = random.next();
        self.tensors.insert(name.to_owned(), Stored { shape: shape.to_vec(), values });
    }

    /// Values around `mean`.
    fn vector(&mut self, name: &str, width: usize, mean: f32) {
        let mut random = Random(self.random);
        let values = (0..width).map(|_| bf16::from_f32(mean + random.weight(0.01)).to_f32()).collect();
        self.random = random.next();
        self.tensors.insert(name.to_owned(), Stored { shape: vec![width], values });
    }

    fn weight_and_bias(&mut self, name: &str, width: usize) {
        self.vector(&format!("{name}.weight"), width, 1.0);
        self.vector(&format!("{name}.bias"), width, 0.0);
    }

    /// The files by name.
    pub(crate) fn contents(&self) -> BTreeMap<&'static str, Vec<u8>> {
        let mut files = BTreeMap::from([
            ("config.json", self.config.to_string().into_bytes()),
            ("model.safetensors", safetensors(self.tensors.iter())),
        ]);
        for (name, content) in &self.files {
            match content {
                Some(content) => files.insert(name, content.clone()),
                None => files.remove(name),
            };
        }
        files
    }

    /// The folder as files compiled into the program; they live until the tests end.
    pub(crate) fn repository(&self) -> Repository {
        let files = self.contents().into_iter().map(|(name, content)| (name, &*content.leak()));
        Repository::embedded("tiny", files.collect::<Vec<_>>().leak())
    }

    /// Loads with the kernels of `isa` on `threads` threads.
    pub(super) fn load(
        &self,
        dtype: Option<Dtype>,
        isa: Isa,
        threads: usize,
    ) -> Result<LoadedModel, ModelError> {
        self.load_with(dtype, None, (isa, threads))
    }

    /// The same, with keys and values held so.
    pub(super) fn load_with(
        &self,
        dtype: Option<Dtype>,
        kv: Option<KvDtype>,
        (isa, threads): (Isa, usize),
    ) -> Result<LoadedModel, ModelError> {
        let options = LoadOptions { dtype, quantise: None, kv, max_batch_tokens: 128, max_outputs: 128 };
        crate::load(&self.repository(), &options, tensor::kernels(isa, threads))
    }
}

/// Rows of the embedding tables; some more than the tokenizer has.
pub(super) const VOCABULARY: usize = 270;
/// The id of the special token `<|end|>`.
pub(super) const END: u32 = 260;

/// A byte-level tokenizer: all bytes, four merges, one special and one plain added token. `changes` replace top-level keys.
pub(crate) fn tokenizer_json(changes: &Value) -> String {
    let mut symbols: Vec<char> = ByteLevel::alphabet().into_iter().collect();
    symbols.sort_unstable();
    let merged = ["th", "the", "Ġa", "ll"];
    let tokens = symbols.iter().map(char::to_string).chain(merged.map(str::to_owned));
    let vocab: Map<String, Value> = tokens.zip(0..).map(|(token, id)| (token, Value::from(id))).collect();
    let byte_level =
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    let added = |id: u32, content: &str, special: &str| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
               "normalized": false, "special": special == "special"})
    };
    let mut file = json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [added(END, "<|end|>", "special"), added(END + 1, "<think>", "plain")],
        "normalizer": null, "pre_tokenizer": byte_level, "post_processor": null, "decoder": byte_level,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "",
            "end_of_word_suffix": "", "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocab, "merges": [["t", "h"], ["th", "e"], ["Ġ", "a"], ["l", "l"]],
        },
    });
    for (key, value) in changes.as_object().into_iter().flatten() {
        file[key] = value.clone();
    }
    file.to_string()
}

/// A safetensors file of F32 tensors.
pub(super) fn safetensors<'t>(tensors: impl Iterator<Item = (&'t String, &'t Stored)>) -> Vec<u8> {
    let (mut header, mut data) = (Map::new(), Vec::new());
    for (name, Stored { shape, values }) in tensors {
        let start = data.len();
        data.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        let entry = json!({"dtype": "F32", "shape": shape, "data_offsets": [start, data.len()]});
        header.insert(name.clone(), entry);
    }
    with_header(&Value::Object(header).to_string(), &data)
}

/// A file of the safetensors layout with any header.
pub(super) fn with_header(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}
