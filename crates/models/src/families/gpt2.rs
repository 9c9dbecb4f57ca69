//! GPT-2: learned positions, LayerNorm, fused qkv, tanh GELU, tied embeddings.
//!
//! "Language Models are Unsupervised Multitask Learners", Radford et al. 2019. Its linear layers are Conv1D: stored
//! `[in, out]`. Published files have bare tensor names and attention mask buffers, which are skipped; files written by
//! `save_pretrained` prefix the names with `transformer.`. GGUF files store the matrices `[out, in]`.

use serde_json::Value;
use tensor::Activation;
use tensor::kernels::Heads;

use crate::config::{Config, LAYERS, POSITIONS, WIDTHS};
use crate::family::{CausalLm, Family, LoadFamily, Source};
use crate::layers::{
    Attention, Block, Decoder, FeedForward, Head, NormWeights, Part, Positions, Stored, Trunk, Tying,
};
use crate::{Dialect, ModelError};

pub(super) const FAMILY: Family =
    Family { name: "gpt2", model_types: &["gpt2"], gguf: Some(&DIALECT), load: LoadFamily::CausalLm(load) };

const DIALECT: Dialect = Dialect {
    architecture: "gpt2",
    settings: &[
        ("n_embd", "embedding_length"),
        ("n_head", "attention.head_count"),
        ("n_layer", "block_count"),
        ("n_positions", "context_length"),
        ("n_inner", "feed_forward_length"),
        ("layer_norm_epsilon", "attention.layer_norm_epsilon"),
    ],
    equal: &[("attention.head_count_kv", "attention.head_count")],
    once: &[("wte", "token_embd"), ("wpe", "position_embd"), ("ln_f", "output_norm"), ("lm_head", "output")],
    layers: "h.",
    layered: &[
        ("ln_1", "attn_norm"),
        ("attn.c_attn", "attn_qkv"),
        ("attn.c_proj", "attn_output"),
        ("ln_2", "ffn_norm"),
        ("mlp.c_fc", "ffn_up"),
        ("mlp.c_proj", "ffn_down"),
    ],
};

struct Dims {
    hidden: usize,
    layers: usize,
    heads: usize,
    positions: usize,
    inner: usize,
    vocabulary: usize,
    eps: f32,
    activation: Activation,
    tying: Tying,
}

impl Dims {
    fn read(config: &Config) -> Result<Self, ModelError> {
        let hidden = config.count("n_embd", WIDTHS)?;
        let heads = config.count("n_head", WIDTHS)?;
        if !hidden.is_multiple_of(heads) {
            let expected = format!("a multiple of n_head, which is {heads}");
            return Err(config.wrong("n_embd", &expected, &hidden.into()));
        }
        config.require("scale_attn_weights", "true", |value| *value == true)?;
        config.require("scale_attn_by_inverse_layer_idx", "false", |value| *value == false)?;
        config.require("add_cross_attention", "false", |value| *value == false)?;
        Ok(Self {
            hidden,
            heads,
            layers: config.count("n_layer", LAYERS)?,
            positions: config.count("n_positions", POSITIONS)?,
            inner: config.optional_count("n_inner", WIDTHS)?.unwrap_or(4 * hidden),
            vocabulary: config.count("vocab_size", WIDTHS)?,
            eps: config.optional_number("layer_norm_epsilon", 0.0..=1.0)?.unwrap_or(1e-5) as f32,
            activation: activation(config)?,
            tying: Tying::read(config, Tying::Tied)?,
        })
    }
}

fn activation(config: &Config) -> Result<Activation, ModelError> {
    match config.text("activation_function")? {
        None | Some("gelu_new" | "gelu_pytorch_tanh") => Ok(Activation::GeluTanh),
        Some("gelu") => Ok(Activation::GeluErf),
        Some("silu" | "swish") => Ok(Activation::Silu),
        Some(other) => {
            let expected = "gelu_new, gelu_pytorch_tanh, gelu or silu";
            Err(config.wrong("activation_function", expected, &Value::from(other)))
        }
    }
}

fn load(source: &Source<'_>) -> Result<Box<dyn CausalLm>, ModelError> {
    let dims = Dims::read(source.config)?;
    let root = source.checkpoint.prefix(&["", "transformer."], "wte.weight");
    let embedding =
        source.checkpoint.tensor(&format!("{root}wte.weight"), &[dims.vocabulary, dims.hidden])?;
    let positions = source.checkpoint.tensor(&format!("{root}wpe.weight"), &[dims.positions, dims.hidden])?;
    let mut blocks = Vec::new();
    for layer in 0..dims.layers {
        blocks.push(block(source, &dims, &format!("{root}h.{layer}"))?);
    }
    let norm = NormWeights::layer(source, &format!("{root}ln_f"), dims.hidden, dims.eps)?;
    let head = Head::load(source, norm, &embedding, dims.tying)?;
    let trunk = Trunk { embedding, positions: Positions::Learned(positions), blocks, head };
    Ok(Box::new(Decoder::new(source, trunk, dims.positions)))
}

fn block(source: &Source<'_>, dims: &Dims, at: &str) -> Result<Block, ModelError> {
    let Dims { hidden, inner, eps, .. } = *dims;
    let conv = |inputs, name: &str, outputs| {
        source.linear(inputs, Stored::Columns, &[Part::biased(&format!("{at}.{name}"), outputs)])
    };
    let attention = Attention {
        norm: NormWeights::layer(source, &format!("{at}.ln_1"), hidden, eps)?,
        qkv: conv(hidden, "attn.c_attn", 3 * hidden)?,
        out: conv(hidden, "attn.c_proj", hidden)?,
        heads: Heads { query: dims.heads, kv: dims.heads, dim: hidden / dims.heads },
        rotation: None,
    };
    let feed_forward = FeedForward::Plain {
        norm: NormWeights::layer(source, &format!("{at}.ln_2"), hidden, eps)?,
        up: conv(hidden, "mlp.c_fc", inner)?,
        activation: dims.activation,
        down: conv(inner, "mlp.c_proj", hidden)?,
    };
    Ok(Block { attention, feed_forward })
}
