//! Features that memory has no room for: they go down the ladder when they leave the shelf, and come back when the same
//! scope shows the same picture.
//!
//! Whoever asks fetches them on its own time, before its request is queued, and then the picture need not even be decoded.
//! The engine's thread only copies what leaves, and only while a buffer is free for it.

use std::sync::Arc;

use memory::ladder::{Stay, Terms};
use memory::rung::Blob;
use memory::{Key, Ladder, LadderStatistics};
use models::vision::{Features, TowerShape};
use sha2::{Digest, Sha256};

use super::shelf::Name;
use crate::prefix::Scope;

/// Where features go that memory has no room for.
#[derive(Clone, Debug)]
pub struct FeatureTier {
    ladder: Arc<Ladder>,
}

impl PartialEq for FeatureTier {
    /// Whether both are one.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.ladder, &other.ladder)
    }
}

impl FeatureTier {
    /// Features on a ladder, which must be this engine's alone and begin empty: features have no name by which the next
    /// start could tell what made them.
    pub fn new(ladder: Ladder) -> Self {
        Self { ladder: Arc::new(ladder) }
    }

    /// What it holds and has done.
    pub fn statistics(&self) -> LadderStatistics {
        self.ladder.statistics()
    }

    /// Keeps features that leave memory, if a buffer is free for them. What belongs to a single request is not kept.
    pub(super) fn keep(&self, name: &Name, features: &Features) {
        let Some((key, note)) = named(&name.scope, &name.hash) else { return };
        if self.ladder.contains(key) {
            return;
        }
        let Some(mut buffer) = self.ladder.try_reserve(features.bytes()) else { return };
        for (four, value) in buffer.as_chunks_mut().0.iter_mut().zip(features.values()) {
            *four = value.to_le_bytes();
        }
        self.ladder.put(key, Blob { note, bytes: buffer }, Terms { stay: Stay::WhileRoom, cost: 0.0 });
    }

    /// Whether features of a picture are there.
    pub(super) fn has(&self, scope: &Scope, hash: &[u8; 32]) -> bool {
        named(scope, hash).is_some_and(|(key, _)| self.ladder.contains(key))
    }

    /// The features of a picture with so many tokens, if they are there and come whole.
    pub(super) async fn fetch(
        &self,
        (scope, hash): (&Scope, &[u8; 32]),
        tokens: usize,
        shape: TowerShape,
    ) -> Option<Features> {
        let (key, note) = named(scope, hash)?;
        let blob = match self.ladder.get(key).await {
            Ok(blob) => blob,
            Err(error) => {
                tracing::debug!(%error, "features of a picture are made again");
                return None;
            }
        };
        if blob.note != note || blob.bytes.len() != shape.feature_bytes(tokens) {
            return None;
        }
        let values = blob.bytes.as_chunks().0.iter().map(|four| f32::from_le_bytes(*four)).collect();
        Some(Features::new(tokens, shape.width, values))
    }

    /// Forgets all.
    pub(super) fn clear(&self) {
        self.ladder.clear();
    }
}

/// The name of a picture's features in a scope, and the whole digest that the name is half of.
fn named(scope: &Scope, hash: &[u8; 32]) -> Option<(Key, Box<[u8]>)> {
    let Scope::Tenant { name, salt } = scope else { return None };
    let mut digest = Sha256::new();
    // Lengths keep a name that ends like a salt from being taken for one with that salt.
    for text in [Some(&**name), salt.as_deref()] {
        digest.update(text.map_or(u64::MAX, |text| text.len() as u64).to_le_bytes());
        digest.update(text.unwrap_or_default());
    }
    digest.update(hash);
    let digest: [u8; 32] = digest.finalize().into();
    let (half, _) = digest.split_first_chunk()?;
    Some((Key(u128::from_le_bytes(*half)), digest.into()))
}
