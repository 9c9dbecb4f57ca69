//! Pictures in prompts: from files that clients send to rows that the decoder reads.
//!
//! A request with pictures is prepared on its caller's time: headers say how many tokens the pictures are, so that a prompt
//! which does not fit is refused before anything is decoded; then the pool's threads decode and cut them, and only then the
//! request is queued. `gallery.rs` is the engine's side: the tower reads pictures in slices between the steps of others.

pub(crate) mod gallery;
mod shelf;
#[cfg(test)]
mod tests;
mod view;

use std::sync::Arc;
use std::time::Duration;

use futures::future::try_join_all;
use images::{ImageError, Pool, PoolError, PoolSettings, Recipe, Urgency};
use models::vision::{Grid, Layout, Marks, Vision, lay_out};
use protocol::{Image, Priority, Refusal};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub(crate) use view::View;

use crate::EngineError;

/// How a model that sees works.
#[derive(Clone, Debug, PartialEq)]
pub struct VisionSettings {
    /// The threads that decode pictures, what may wait for them, and how large a picture may be.
    pub pool: PoolSettings,
    /// The most pictures of one request.
    pub max_images: usize,
    /// Bytes of decoded pictures that may wait for the tower; callers wait for room. One request alone may exceed it.
    pub patch_bytes: usize,
    /// Bytes of what the tower has made of pictures. What no request needs is kept until others need the room.
    pub feature_bytes: usize,
    /// The share of a step's prompt tokens that the tower's work may stand for while prompts are read too, from 0 to 1.
    pub share: f32,
}

impl Default for VisionSettings {
    fn default() -> Self {
        Self {
            pool: PoolSettings::default(),
            max_images: 64,
            patch_bytes: 128 << 20,
            feature_bytes: 256 << 20,
            share: 0.5,
        }
    }
}

/// Room for patches is counted in so many bytes.
const UNIT: usize = 1 << 10;

/// After so long, somebody's picture has been decoded.
const RETRY: Duration = Duration::from_secs(1);

/// Where requests name their pictures.
const PARAM: &str = "messages";

/// A picture that is ready for the tower.
pub(crate) struct Picture {
    /// The same for the same patches, and for no others.
    pub(crate) hash: [u8; 32],
    pub(crate) grid: Grid,
    pub(crate) patches: Arc<images::Patches>,
    _room: Arc<OwnedSemaphorePermit>,
}

/// What prepares pictures, on its callers' time.
pub(crate) struct Eyes {
    pool: Pool,
    recipe: Arc<Recipe>,
    marks: Marks,
    max_images: usize,
    room: Arc<Semaphore>,
    all_room: usize,
}

impl Eyes {
    /// The eyes of a model.
    ///
    /// # Errors
    /// When the system gives no threads.
    pub(crate) fn new(vision: &Vision, settings: &VisionSettings) -> Result<Self, EngineError> {
        let all_room = (settings.patch_bytes / UNIT).clamp(1, Semaphore::MAX_PERMITS.min(u32::MAX as usize));
        Ok(Self {
            pool: Pool::new(settings.pool).map_err(EngineError::Thread)?,
            recipe: Arc::new(vision.recipe.clone()),
            marks: vision.marks,
            max_images: settings.max_images,
            room: Arc::new(Semaphore::new(all_room)),
            all_room,
        })
    }

    /// What the pool has done.
    pub(crate) fn meters(&self) -> images::Meters {
        self.pool.meters()
    }

    /// Makes room in a prompt for pictures of which only the headers are read.
    ///
    /// # Errors
    /// When there are too many of them, one cannot be used, or the prompt has room for more or fewer.
    pub(crate) fn lay_out(&self, ids: &[u32], images: &[Image]) -> Result<Layout, Refusal> {
        if images.len() > self.max_images {
            let (most, found) = (self.max_images, images.len());
            return Err(invalid(format!("at most {most} images are read in one request, got {found}")));
        }
        let grid = |image: &Image| {
            let header = images::inspect(&image.bytes, self.pool.limits())?;
            let images::Grid { h, w, .. } = images::grid(&header, &self.recipe)?;
            Ok(Grid { h, w })
        };
        let grids = images.iter().enumerate().map(|(at, image)| grid(image).map_err(|e| unusable(at, &e)));
        let grids = grids.collect::<Result<Vec<_>, _>>()?;
        lay_out(ids, (&grids, &[]), self.marks).map_err(|error| invalid(error.to_string()))
    }

    /// Decodes pictures and cuts them into patches.
    ///
    /// # Errors
    /// When one cannot be decoded, or too many wait for that.
    pub(crate) async fn prepare(
        &self,
        images: &[Image],
        priority: Priority,
    ) -> Result<Vec<Picture>, Refusal> {
        let urgency = match priority {
            Priority::High => Urgency::High,
            Priority::Normal => Urgency::Normal,
            Priority::Low => Urgency::Low,
        };
        let patches: Result<Vec<usize>, Refusal> = images
            .iter()
            .enumerate()
            .map(|(at, image)| {
                let header = images::inspect(&image.bytes, self.pool.limits());
                let grid = header.and_then(|header| images::grid(&header, &self.recipe));
                grid.map(|grid| grid.patches()).map_err(|error| unusable(at, &error))
            })
            .collect();
        // A byte for each value of one of the equal frames of a still picture.
        let bytes =
            patches?.iter().sum::<usize>() * self.recipe.patch_values() / self.recipe.temporal_patch_size;
        // All of a request's room at once: whoever holds some never waits for more.
        let units = bytes.div_ceil(UNIT).min(self.all_room) as u32;
        let room = Arc::clone(&self.room).acquire_many_owned(units).await;
        let room = Arc::new(room.map_err(|_| refusal(0, PoolError::Stopped))?);
        let prepared = images.iter().enumerate().map(|(at, image)| {
            let submitted = self.pool.still(Arc::clone(&image.bytes), Arc::clone(&self.recipe), urgency);
            let room = Arc::clone(&room);
            async move {
                let found = match submitted {
                    Ok(preparing) => preparing.await,
                    Err(error) => Err(error),
                };
                let patches = found.map_err(|error| refusal(at, error))?;
                let grid = Grid { h: patches.grid.h, w: patches.grid.w };
                Ok(Picture { hash: patches.hash, grid, patches: Arc::new(patches), _room: room })
            }
        });
        try_join_all(prepared).await
    }
}

fn invalid(message: String) -> Refusal {
    Refusal::InvalidParameter { param: PARAM.to_owned(), message }
}

/// Counts images from 1, as people do.
fn unusable(at: usize, error: &ImageError) -> Refusal {
    invalid(format!("image {}: {error}", at + 1))
}

fn refusal(at: usize, error: PoolError) -> Refusal {
    match error {
        PoolError::Image(error) => unusable(at, &error),
        PoolError::Full { queued, .. } => Refusal::QueueFull { queued, retry_after: RETRY },
        other => Refusal::NotReady { reason: other.to_string() },
    }
}
