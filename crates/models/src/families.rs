//! The table of model families.

mod bert;
mod gpt2;
mod qwen3;
mod qwen3_vl;
mod roberta;

use crate::family::Family;

/// Every family, in the order in which messages list them.
pub const FAMILIES: &[Family] =
    &[gpt2::FAMILY, qwen3::FAMILY, qwen3_vl::FAMILY, bert::FAMILY, roberta::FAMILY];

/// The family that reads `model_type`.
pub(crate) fn find(model_type: &str) -> Option<&'static Family> {
    FAMILIES.iter().find(|family| family.model_types.contains(&model_type))
}

/// Every `model_type` that some family reads.
pub(crate) fn known() -> Vec<&'static str> {
    FAMILIES.iter().flat_map(|family| family.model_types).copied().collect()
}
