//! Qwen3 (dense): RMSNorm, grouped-query attention with normed and rotated heads, gated feed-forward.
//!
//! "Qwen3 Technical Report", Qwen Team 2025 (arXiv 2505.09388). The width of a head is its own setting and need not be
//! hidden / heads. Tied checkpoints may carry a redundant `lm_head.weight`, which is ignored.

use tensor::kernels::Heads;

use crate::config::{Config, LAYERS, POSITIONS, WIDTHS};
use crate::family::{CausalLm, Family, LoadFamily, Source};
use crate::layers::{
    Attention, Block, Decoder, FeedForward, Head, HeadNorms, NormWeights, Part, Positions, Rotary, Stored,
    Trunk, Tying,
};
use crate::{Dialect, ModelError};

pub(super) const FAMILY: Family =
    Family { name: "qwen3", model_types: &["qwen3"], gguf: Some(&DIALECT), load: LoadFamily::CausalLm(load) };

const DIALECT: Dialect = Dialect {
    architecture: "qwen3",
    settings: &[
        ("hidden_size", "embedding_length"),
        ("num_hidden_layers", "block_count"),
        ("num_attention_heads", "attention.head_count"),
        ("num_key_value_heads", "attention.head_count_kv"),
        ("head_dim", "attention.key_length"),
        ("max_position_embeddings", "context_length"),
        ("intermediate_size", "feed_forward_length"),
        ("rms_norm_eps", "attention.layer_norm_rms_epsilon"),
        ("rope_theta", "rope.freq_base"),
        ("rope_scaling.type", "rope.scaling.type"),
        ("use_sliding_window", "attention.sliding_window"),
    ],
    equal: &[
        ("attention.value_length", "attention.key_length"),
        ("rope.dimension_count", "attention.key_length"),
    ],
    once: &[("model.embed_tokens", "token_embd"), ("model.norm", "output_norm"), ("lm_head", "output")],
    layers: "model.layers.",
    layered: &[
        ("input_layernorm", "attn_norm"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("self_attn.q_norm", "attn_q_norm"),
        ("self_attn.k_norm", "attn_k_norm"),
        ("post_attention_layernorm", "ffn_norm"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
    ],
};

/// Extents of a decoder.
pub(super) struct Dims {
    pub(super) hidden: usize,
    pub(super) layers: usize,
    pub(super) heads: Heads,
    pub(super) positions: usize,
    inner: usize,
    pub(super) vocabulary: usize,
    eps: f32,
    pub(super) theta: f64,
    biased: bool,
    pub(super) tying: Tying,
}

impl Dims {
    pub(super) fn read(config: &Config) -> Result<Self, ModelError> {
        config.require("hidden_act", "'silu'", |value| value == "silu")?;
        let full = "false (sliding windows are not supported)";
        config.require("use_sliding_window", full, |value| *value == false)?;
        config.require("layer_types", "a list of 'full_attention'", |value| {
            value.as_array().is_some_and(|kinds| kinds.iter().all(|kind| kind == "full_attention"))
        })?;
        Ok(Self {
            hidden: config.count("hidden_size", WIDTHS)?,
            layers: config.count("num_hidden_layers", LAYERS)?,
            heads: heads(config)?,
            positions: config.count("max_position_embeddings", POSITIONS)?,
            inner: config.count("intermediate_size", WIDTHS)?,
            vocabulary: config.count("vocab_size", WIDTHS)?,
            eps: config.optional_number("rms_norm_eps", 0.0..=1.0)?.unwrap_or(1e-6) as f32,
            theta: config.rope_theta(10_000.0)?,
            biased: config.flag("attention_bias")?.unwrap_or(false),
            tying: Tying::read(config, Tying::Untied)?,
        })
    }
}

fn heads(config: &Config) -> Result<Heads, ModelError> {
    let query = config.count("num_attention_heads", WIDTHS)?;
    let kv = config.optional_count("num_key_value_heads", WIDTHS)?.unwrap_or(query);
    if !query.is_multiple_of(kv) {
        let expected = format!("a divisor of num_attention_heads, which is {query}");
        return Err(config.wrong("num_key_value_heads", &expected, &kv.into()));
    }
    let dim = config.optional_count("head_dim", WIDTHS)?.unwrap_or(128);
    if !dim.is_multiple_of(2) {
        return Err(config.wrong(
            "head_dim",
            "an even number, since halves of a head are rotated",
            &dim.into(),
        ));
    }
    Ok(Heads { query, kv, dim })
}

fn load(source: &Source<'_>) -> Result<Box<dyn CausalLm>, ModelError> {
    let dims = Dims::read(source.config)?;
    let root = source.checkpoint.prefix(&["model.", ""], "embed_tokens.weight");
    let rotary = Rotary::new(dims.heads.dim, dims.theta, dims.positions);
    Ok(Box::new(decoder(source, (&dims, rotary), root)?))
}

/// The decoder whose tensors stand under `root`.
pub(super) fn decoder(
    source: &Source<'_>,
    (dims, rotary): (&Dims, Rotary),
    root: &str,
) -> Result<Decoder, ModelError> {
    let table = [dims.vocabulary, dims.hidden];
    let embedding = source.checkpoint.tensor(&format!("{root}embed_tokens.weight"), &table)?;
    let mut blocks = Vec::new();
    for layer in 0..dims.layers {
        blocks.push(block(source, dims, &format!("{root}layers.{layer}"))?);
    }
    let norm = NormWeights::rms(source, &format!("{root}norm"), dims.hidden, dims.eps)?;
    let head = Head::load(source, norm, &embedding, dims.tying)?;
    let trunk = Trunk { embedding, positions: Positions::Rotary(rotary), blocks, head };
    Ok(Decoder::new(source, trunk, dims.positions))
}

fn block(source: &Source<'_>, dims: &Dims, at: &str) -> Result<Block, ModelError> {
    let Dims { hidden, inner, eps, heads: Heads { query, kv, dim }, .. } = *dims;
    let project = |name: &str, outputs| {
        let name = format!("{at}.self_attn.{name}_proj");
        if dims.biased { Part::biased(&name, outputs) } else { Part::plain(&name, outputs) }
    };
    let mlp = |name: &str, outputs| Part::plain(&format!("{at}.mlp.{name}_proj"), outputs);
    let rms = |name: &str, width| NormWeights::rms(source, &format!("{at}.{name}"), width, eps);
    let qkv = [project("q", query * dim), project("k", kv * dim), project("v", kv * dim)];
    let attention = Attention {
        norm: rms("input_layernorm", hidden)?,
        qkv: source.linear(hidden, Stored::Rows, &qkv)?,
        out: source.linear(query * dim, Stored::Rows, &[project("o", hidden)])?,
        heads: dims.heads,
        rotation: Some(HeadNorms {
            query: rms("self_attn.q_norm", dim)?,
            key: rms("self_attn.k_norm", dim)?,
        }),
    };
    let feed_forward = FeedForward::Gated {
        norm: rms("post_attention_layernorm", hidden)?,
        gate_up: source.gated(hidden, [mlp("gate", inner), mlp("up", inner)])?,
        down: source.linear(inner, Stored::Rows, &[mlp("down", hidden)])?,
    };
    Ok(Block { attention, feed_forward })
}
