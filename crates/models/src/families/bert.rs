//! BERT: learned positions and token types, post-norm blocks, exact GELU, and every token sees every other one.
//!
//! "BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding", Devlin et al. 2018
//! (arXiv 1810.04805). MiniLM, bge, e5 and gte folders are of this family. Files written by a task model prefix the names
//! with `bert.`; the buffer `embeddings.position_ids` is skipped.

use serde_json::Value;
use tensor::Activation;
use tensor::kernels::Heads;

use crate::ModelError;
use crate::config::{Config, LAYERS, POSITIONS, WIDTHS};
use crate::encoder::Encoder;
use crate::family::{Family, LoadFamily, Source};
use crate::layers::{Embeddings, EncoderBlock, NormWeights, Part, PostNormEncoder, Stored};

pub(super) const FAMILY: Family = Family {
    name: "bert",
    model_types: &["bert"],
    gguf: None,
    load: LoadFamily::Encoder { positions, load },
};

fn positions(config: &Config) -> Result<usize, ModelError> {
    config.count("max_position_embeddings", POSITIONS)
}

struct Dims {
    hidden: usize,
    layers: usize,
    heads: usize,
    inner: usize,
    vocabulary: usize,
    positions: usize,
    types: usize,
    eps: f32,
    activation: Activation,
}

impl Dims {
    fn read(config: &Config) -> Result<Self, ModelError> {
        let hidden = config.count("hidden_size", WIDTHS)?;
        let heads = config.count("num_attention_heads", WIDTHS)?;
        if !hidden.is_multiple_of(heads) {
            let expected = format!("a multiple of num_attention_heads, which is {heads}");
            return Err(config.wrong("hidden_size", &expected, &hidden.into()));
        }
        config.require("position_embedding_type", "'absolute'", |value| value == "absolute")?;
        config.require("is_decoder", "false", |value| *value == false)?;
        Ok(Self {
            hidden,
            heads,
            layers: config.count("num_hidden_layers", LAYERS)?,
            inner: config.count("intermediate_size", WIDTHS)?,
            vocabulary: config.count("vocab_size", WIDTHS)?,
            positions: positions(config)?,
            types: config.optional_count("type_vocab_size", WIDTHS)?.unwrap_or(2),
            eps: config.optional_number("layer_norm_eps", 0.0..=1.0)?.unwrap_or(1e-12) as f32,
            activation: activation(config)?,
        })
    }
}

fn activation(config: &Config) -> Result<Activation, ModelError> {
    match config.text("hidden_act")? {
        None | Some("gelu") => Ok(Activation::GeluErf),
        Some("gelu_new" | "gelu_pytorch_tanh") => Ok(Activation::GeluTanh),
        Some(other) => {
            Err(config.wrong("hidden_act", "gelu, gelu_new or gelu_pytorch_tanh", &Value::from(other)))
        }
    }
}

fn load(source: &Source<'_>) -> Result<Box<dyn Encoder>, ModelError> {
    encoder(source, "bert.", 0)
}

/// An encoder of BERT's blocks, whose tensors may have a prefix, and of whose positions so many stand for no token.
pub(super) fn encoder(
    source: &Source<'_>,
    prefix: &str,
    first_position: u32,
) -> Result<Box<dyn Encoder>, ModelError> {
    let dims = Dims::read(source.config)?;
    let Dims { hidden, vocabulary, positions, types, eps, .. } = dims;
    let root = source.checkpoint.prefix(&["", prefix], "embeddings.word_embeddings.weight");
    let table = |name: &str, rows| {
        source.checkpoint.tensor(&format!("{root}embeddings.{name}_embeddings.weight"), &[rows, hidden])
    };
    let embeddings = Embeddings {
        words: table("word", vocabulary)?,
        types: table("token_type", types)?,
        positions: table("position", positions)?,
        first_position,
        norm: NormWeights::layer(source, &format!("{root}embeddings.LayerNorm"), hidden, eps)?,
    };
    let blocks = (0..dims.layers).map(|layer| block(source, &dims, &format!("{root}encoder.layer.{layer}")));
    let heads = Heads { query: dims.heads, kv: dims.heads, dim: hidden / dims.heads };
    let blocks = (heads, blocks.collect::<Result<Vec<_>, _>>()?);
    Ok(Box::new(PostNormEncoder::new(source, embeddings, blocks)))
}

fn block(source: &Source<'_>, dims: &Dims, at: &str) -> Result<EncoderBlock, ModelError> {
    let Dims { hidden, inner, eps, .. } = *dims;
    let linear = |inputs, names: &[&str], outputs| {
        let parts = names.iter().map(|name| Part::biased(&format!("{at}.{name}"), outputs));
        source.linear(inputs, Stored::Rows, &parts.collect::<Vec<_>>())
    };
    let qkv = ["attention.self.query", "attention.self.key", "attention.self.value"];
    Ok(EncoderBlock {
        qkv: linear(hidden, &qkv, hidden)?,
        out: linear(hidden, &["attention.output.dense"], hidden)?,
        attended: NormWeights::layer(source, &format!("{at}.attention.output.LayerNorm"), hidden, eps)?,
        up: linear(hidden, &["intermediate.dense"], inner)?,
        activation: dims.activation,
        down: linear(inner, &["output.dense"], hidden)?,
        fed: NormWeights::layer(source, &format!("{at}.output.LayerNorm"), hidden, eps)?,
    })
}
