//! RoBERTa: BERT's blocks with positions that begin behind that of the padding, and one token type.
//!
//! "RoBERTa: A Robustly Optimized BERT Pretraining Approach", Liu et al. 2019 (arXiv 1907.11692); XLM-R, "Unsupervised
//! Cross-lingual Representation Learning at Scale", Conneau et al. 2019 (arXiv 1911.02116), and CamemBERT are the same with
//! other vocabularies. all-distilroberta, multilingual-e5, bge-m3's dense part and bge-reranker folders are of this family.

use super::bert;
use crate::ModelError;
use crate::config::{Config, POSITIONS};
use crate::encoder::Encoder;
use crate::family::{Family, LoadFamily, Source};

pub(super) const FAMILY: Family = Family {
    name: "roberta",
    model_types: &["roberta", "xlm-roberta", "camembert"],
    gguf: None,
    load: LoadFamily::Encoder { positions, load },
};

/// The position of the first token: padding stands at that of its id, and tokens behind it.
fn first(config: &Config) -> Result<usize, ModelError> {
    Ok(config.optional_count("pad_token_id", 0..=*POSITIONS.end())?.unwrap_or(1) + 1)
}

fn positions(config: &Config) -> Result<usize, ModelError> {
    let (all, first) = (config.count("max_position_embeddings", POSITIONS)?, first(config)?);
    let none = || config.wrong("max_position_embeddings", &format!("more than {first}"), &all.into());
    all.checked_sub(first).filter(|positions| *positions > 0).ok_or_else(none)
}

fn load(source: &Source<'_>) -> Result<Box<dyn Encoder>, ModelError> {
    positions(source.config)?;
    let first = u32::try_from(first(source.config)?).unwrap_or(u32::MAX);
    bert::encoder(source, "roberta.", first)
}
