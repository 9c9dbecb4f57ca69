//! How pictures are read, where the model sees.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, ValueHint};
use images::PoolSettings;

use super::{ByteSize, positive};

/// How pictures are read, where the model sees.
#[derive(Args, Clone, Debug, PartialEq)]
#[command(next_help_heading = "Vision")]
pub struct VisionSettings {
    /// Threads that decode images, beside those that compute.
    #[arg(long, env = "TIDEGATE_IMAGE_THREADS", value_name = "N", default_value_t = Self::default().image_threads)]
    pub image_threads: NonZeroUsize,
    /// Most images of one request.
    #[arg(long, env = "TIDEGATE_MAX_IMAGES", value_name = "N", default_value_t = Self::default().max_images)]
    pub max_images: NonZeroUsize,
    /// Memory for decoded images that wait for the vision tower; requests wait for room before they are queued.
    #[arg(long, env = "TIDEGATE_IMAGE_MEMORY", value_name = "BYTES", default_value_t = Self::default().image_memory)]
    pub image_memory: ByteSize,
    /// Memory for what the vision tower has made of images, which is used again for the same image of the same tenant.
    #[arg(long, env = "TIDEGATE_VISION_CACHE", value_name = "BYTES", default_value_t = Self::default().vision_cache)]
    pub vision_cache: ByteSize,
    /// Folder where that goes when it has to make room, instead of being made again; emptied at each start. Give each process
    /// a folder of its own, that nobody else may read.
    #[arg(long, env = "TIDEGATE_VISION_DIR", value_name = "FOLDER", value_hint = ValueHint::DirPath)]
    pub vision_dir: Option<PathBuf>,
    /// Most that it may take there, for each model.
    #[arg(long, env = "TIDEGATE_VISION_DISK", value_name = "BYTES", default_value_t = Self::default().vision_disk)]
    pub vision_disk: ByteSize,
    /// Share of a step in percent that images may take while prompts are read too.
    #[arg(long, env = "TIDEGATE_VISION_SHARE", value_name = "PERCENT", default_value_t = Self::default().vision_share,
        value_parser = clap::value_parser!(u8).range(1..=99))]
    pub vision_share: u8,
}

impl Default for VisionSettings {
    fn default() -> Self {
        Self {
            image_threads: positive(1),
            max_images: positive(64),
            image_memory: ByteSize(128 << 20),
            vision_cache: ByteSize(256 << 20),
            vision_dir: None,
            vision_disk: ByteSize(4 << 30),
            vision_share: 50,
        }
    }
}

impl VisionSettings {
    /// The same for an [`engine::Engine`], but for what stands in `vision_dir`: that is a folder for each model.
    pub fn vision(&self) -> engine::VisionSettings {
        let size = |bytes: ByteSize| usize::try_from(bytes.0).unwrap_or(usize::MAX);
        engine::VisionSettings {
            pool: PoolSettings { threads: self.image_threads.get(), ..PoolSettings::default() },
            max_images: self.max_images.get(),
            patch_bytes: size(self.image_memory),
            feature_bytes: size(self.vision_cache),
            share: f32::from(self.vision_share) / 100.0,
            below: None,
        }
    }
}
