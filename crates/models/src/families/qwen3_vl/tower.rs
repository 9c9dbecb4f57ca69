//! The vision tower of Qwen3-VL: which settings and tensors it is made of.

use serde_json::Value;
use tensor::kernels::Heads;
use tensor::{Activation, Linear};

use crate::ModelError;
use crate::config::{Config, LAYERS, WIDTHS};
use crate::family::Source;
use crate::layers::{Merger, NormWeights, Part, TowerBlock, TowerWeights, VisionTower};

const ROOT: &str = "model.visual";

/// Added to variances; no setting says so.
const EPS: f32 = 1e-6;

/// Base of the rotary frequencies; no published setting says so.
const THETA: f64 = 10_000.0;

struct Dims {
    hidden: usize,
    heads: Heads,
    inner: usize,
    depth: usize,
    /// Side of the grid of learned positions.
    side: usize,
    patch: usize,
    temporal: usize,
    channels: usize,
    merge: usize,
    /// Blocks after which something is handed to the text layers.
    tapped: Vec<usize>,
    out: usize,
}

/// Sides of patches, in pixels or patches, and frames.
const SIDES: std::ops::RangeInclusive<usize> = 1..=256;

impl Dims {
    fn read(config: &Config, out: usize) -> Result<Self, ModelError> {
        config.require("hidden_act", "'gelu_pytorch_tanh'", |value| value == "gelu_pytorch_tanh")?;
        let width = |key| config.count(key, WIDTHS);
        let (hidden, heads) = (width("hidden_size")?, width("num_heads")?);
        if !hidden.is_multiple_of(4 * heads) {
            let expected =
                format!("a number of heads whose width is a multiple of 4; hidden_size is {hidden}");
            return Err(config.wrong("num_heads", &expected, &heads.into()));
        }
        let entries = width("num_position_embeddings")?;
        let side = entries.isqrt();
        if side * side != entries {
            return Err(config.wrong("num_position_embeddings", "a square number", &entries.into()));
        }
        let depth = config.count("depth", LAYERS)?;
        let merge = config.optional_count("spatial_merge_size", 1..=16)?.unwrap_or(2);
        config.require("out_hidden_size", &format!("{out}, the hidden_size of text_config"), |value| {
            value.as_u64() == Some(out as u64)
        })?;
        Ok(Self {
            hidden,
            heads: Heads { query: heads, kv: heads, dim: hidden / heads },
            inner: width("intermediate_size")?,
            depth,
            side,
            patch: config.optional_count("patch_size", SIDES)?.unwrap_or(16),
            temporal: config.optional_count("temporal_patch_size", SIDES)?.unwrap_or(2),
            channels: config.optional_count("in_channels", 1..=16)?.unwrap_or(3),
            merge,
            tapped: tapped(config, depth)?,
            out,
        })
    }
}

fn tapped(config: &Config, depth: usize) -> Result<Vec<usize>, ModelError> {
    let key = "deepstack_visual_indexes";
    let Some(found) = config.get(key) else { return Ok(Vec::new()) };
    let block = |value: &Value| usize::try_from(value.as_u64()?).ok().filter(|&block| block < depth);
    let blocks: Option<Vec<usize>> = found.as_array().and_then(|blocks| blocks.iter().map(block).collect());
    let blocks = blocks.filter(|blocks| blocks.is_sorted_by(|a, b| a < b));
    blocks.ok_or_else(|| config.wrong(key, &format!("ascending numbers of blocks below {depth}"), found))
}

/// The tower whose features are `out` wide, and how many patches it merges along each axis.
pub(super) fn load(source: &Source<'_>, out: usize) -> Result<(VisionTower, usize), ModelError> {
    let dims = Dims::read(&source.config.section("vision_config")?, out)?;
    let before = source.checkpoint.elements_read();
    let kernel = [dims.hidden, dims.channels, dims.temporal, dims.patch, dims.patch];
    let embed = source.convolution(&format!("{ROOT}.patch_embed.proj"), &kernel)?;
    let table = [dims.side * dims.side, dims.hidden];
    let positions = source.checkpoint.tensor(&format!("{ROOT}.pos_embed.weight"), &table)?.to_f32();
    let blocks: Result<Vec<_>, _> =
        (0..dims.depth).map(|number| block(source, &dims, &format!("{ROOT}.blocks.{number}"))).collect();
    let group = dims.hidden * dims.merge * dims.merge;
    let taps = dims.tapped.iter().enumerate().map(|(level, &block)| {
        let at = format!("{ROOT}.deepstack_merger_list.{level}");
        Ok((
            block,
            merger(source, &dims, &at, NormWeights::layer(source, &format!("{at}.norm"), group, EPS)?)?,
        ))
    });
    let taps: Result<Vec<_>, ModelError> = taps.collect();
    let at = format!("{ROOT}.merger");
    let norm = NormWeights::layer(source, &format!("{at}.norm"), dims.hidden, EPS)?;
    let merger = merger(source, &dims, &at, norm)?;
    let weights = TowerWeights {
        embed,
        positions,
        side: dims.side,
        theta: THETA,
        heads: dims.heads,
        merge: dims.merge,
        blocks: blocks?,
        taps: taps?,
        merger,
    };
    let parameters = source.checkpoint.elements_read() - before;
    Ok((VisionTower::new(source, weights, (dims.patch, dims.temporal), parameters), dims.merge))
}

fn block(source: &Source<'_>, dims: &Dims, at: &str) -> Result<TowerBlock, ModelError> {
    let &Dims { hidden, inner, .. } = dims;
    let linear = |name: &str, inputs, outputs| -> Result<Linear, ModelError> {
        source.seeing(inputs, Part::biased(&format!("{at}.{name}"), outputs))
    };
    let norm = |name: &str| NormWeights::layer(source, &format!("{at}.{name}"), hidden, EPS);
    Ok(TowerBlock {
        before: norm("norm1")?,
        qkv: linear("attn.qkv", hidden, 3 * hidden)?,
        out: linear("attn.proj", hidden, hidden)?,
        between: norm("norm2")?,
        up: linear("mlp.linear_fc1", hidden, inner)?,
        activation: Activation::GeluTanh,
        down: linear("mlp.linear_fc2", inner, hidden)?,
    })
}

fn merger(source: &Source<'_>, dims: &Dims, at: &str, norm: NormWeights) -> Result<Merger, ModelError> {
    let group = dims.hidden * dims.merge * dims.merge;
    let linear = |name: &str, outputs| source.seeing(group, Part::biased(&format!("{at}.{name}"), outputs));
    Ok(Merger { norm, up: linear("linear_fc1", group)?, down: linear("linear_fc2", dims.out)? })
}
