//! What families share: a family reads its config.json and names its tensors, these layers do the rest.
//!
//! Read `decoder.rs` first; its `forward` is the whole model. `encoder.rs` is the same for models that do not generate.

mod attention;
mod classifier;
mod decoder;
mod encoder;
mod feed_forward;
mod head;
mod norm;
mod packing;
mod positions;
mod tower;
mod weights;
mod workspace;

pub(crate) use attention::{Attention, HeadNorms};
pub(crate) use classifier::Classifier;
pub(crate) use decoder::{Block, Decoder, Trunk};
pub(crate) use encoder::{Embeddings, EncoderBlock, PostNormEncoder};
pub(crate) use feed_forward::FeedForward;
pub(crate) use head::{Head, Tying};
pub(crate) use norm::NormWeights;
pub(crate) use packing::{Listed, Packing};
pub(crate) use positions::{Positions, Rotary};
pub(crate) use tower::{Merger, TowerBlock, TowerWeights, VisionTower};
pub(crate) use weights::{Part, Stored};
