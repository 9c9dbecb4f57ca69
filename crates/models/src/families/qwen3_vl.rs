//! Qwen3-VL: the decoder of Qwen3 with multimodal positions, and a vision tower.
//!
//! "Qwen3-VL Technical Report", Qwen Team 2025 (arXiv 2511.21631). Tensors of the decoder stand under
//! `model.language_model.`, those of the tower under `model.visual.`.

mod tower;

use serde_json::Value;

use super::qwen3::{self, Dims};
use crate::ModelError;
use crate::config::Config;
use crate::family::{Family, LoadFamily, Seeing, Source};
use crate::layers::{Rotary, Tying};
use crate::vision::Marks;

pub(super) const FAMILY: Family =
    Family { name: "qwen3_vl", model_types: &["qwen3_vl"], gguf: None, load: LoadFamily::Seeing(load) };

/// The base of the rotary frequencies where the settings have none.
const THETA: f64 = 500_000.0;

fn load(source: &Source<'_>) -> Result<Seeing, ModelError> {
    let text = source.config.section("text_config")?;
    let head = if source.checkpoint.contains("lm_head.weight") { Tying::Untied } else { Tying::Tied };
    let tying = Tying::read(source.config, Tying::read(&text, head)?)?;
    let mut dims = Dims::read(&text)?;
    (dims.theta, dims.tying) = (text.rope_theta(THETA)?, tying);
    let [_, heights, widths] = sections(&text, dims.heads.dim / 2)?;
    let rotary = Rotary::new(dims.heads.dim, dims.theta, dims.positions).interleaved(heights, widths);
    // The decoder is told last how many parameters there are.
    let (tower, merge) = tower::load(source, dims.hidden)?;
    let model = qwen3::decoder(source, (&dims, rotary), "model.language_model.")?;
    let mark = |key| source.config.count(key, 0..=dims.vocabulary - 1).map(|id| id as u32);
    let marks = Marks { image: mark("image_token_id")?, video: mark("video_token_id")?, merge };
    Ok(Seeing { model: Box::new(model), tower: Some((Box::new(tower), marks)) })
}

/// How many of the frequencies time, height and width turn.
fn sections(text: &Config, half: usize) -> Result<[usize; 3], ModelError> {
    let group = if text.get("rope_parameters").is_some() { "rope_parameters" } else { "rope_scaling" };
    let interleaved = "true (blockwise multimodal rope is not supported)";
    text.require(&format!("{group}.mrope_interleaved"), interleaved, |value| *value == true)?;
    let key = format!("{group}.mrope_section");
    let found = text.get(&key).unwrap_or(&Value::Null);
    let counts: Option<Vec<usize>> = found.as_array().and_then(|counts| {
        counts
            .iter()
            .map(|count| usize::try_from(count.as_u64()?).ok().filter(|&count| count <= half))
            .collect()
    });
    let counts = counts.and_then(|counts| <[usize; 3]>::try_from(counts).ok());
    counts.ok_or_else(|| {
        text.wrong(&key, &format!("three numbers up to {half}, half the width of a head"), found)
    })
}
