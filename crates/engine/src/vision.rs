//! Pictures in prompts: from files that clients send to rows that the decoder reads.
//!
//! A request with pictures is prepared on its caller's time: headers say how many tokens the pictures are, so that a prompt
//! which does not fit is refused before anything is decoded; then the pool's threads decode and cut them, and only then the
//! request is queued. `gallery.rs` is the engine's side: the tower reads pictures in slices between the steps of others.

pub(crate) mod attic;
pub(crate) mod gallery;
mod shelf;
#[cfg(test)]
mod tests;
mod view;

use std::sync::Arc;
use std::time::Duration;

use futures::future::{try_join, try_join_all};
use images::{ClipOutline, ClipRecipe, Frames, ImageError, Pool, PoolError, PoolSettings, Recipe, Urgency};
use models::vision::{Features, Grid, Layout, Marks, Pixels, Placed, TowerShape, Vision, lay_out};
use protocol::{Clip, GenerateRequest, Image, Priority, Refusal};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use attic::FeatureTier;
pub(crate) use view::View;

use crate::EngineError;
use crate::prefix::Scope;

/// How a model that sees works.
#[derive(Clone, Debug, PartialEq)]
pub struct VisionSettings {
    /// The threads that decode pictures, what may wait for them, and how large a picture may be.
    pub pool: PoolSettings,
    /// The most pictures and clips of one request.
    pub max_images: usize,
    /// Bytes of decoded pictures that may wait for the tower; callers wait for room. One request alone may exceed it.
    pub patch_bytes: usize,
    /// Bytes of what the tower has made of pictures. What no request needs is kept until others need the room.
    pub feature_bytes: usize,
    /// The share of a step's prompt tokens that the tower's work may stand for while prompts are read too, from 0 to 1.
    pub share: f32,
    /// Where that goes when it has to make room, instead of being made again.
    pub below: Option<FeatureTier>,
}

impl Default for VisionSettings {
    fn default() -> Self {
        Self {
            pool: PoolSettings::default(),
            max_images: 64,
            patch_bytes: 128 << 20,
            feature_bytes: 256 << 20,
            share: 0.5,
            below: None,
        }
    }
}

/// Room for patches is counted in so many bytes.
const UNIT: usize = 1 << 10;

/// After so long, somebody's picture has been decoded.
const RETRY: Duration = Duration::from_secs(1);

/// Where requests name their pictures.
const PARAM: &str = "messages";

/// A picture that is ready for the tower, or a step of time of a clip.
pub(crate) struct Picture {
    /// The same for the same patches, and for no others.
    pub(crate) hash: [u8; 32],
    pub(crate) grid: Grid,
    pub(crate) sight: Sight,
    _room: Option<Arc<OwnedSemaphorePermit>>,
}

impl Picture {
    /// One that takes no room while it waits.
    pub(crate) fn of(hash: [u8; 32], grid: Grid, pixels: Pixels) -> Self {
        Self { hash, grid, sight: Sight::Pixels(pixels), _room: None }
    }
}

/// What there is of a picture.
pub(crate) enum Sight {
    /// What the tower is to read.
    Pixels(Pixels),
    /// What the tower has made of it before.
    Features(Arc<Features>),
}

/// What is asked for with pictures: how urgently, and who may know what was made of them before.
pub(crate) struct Asking {
    pub(crate) priority: Priority,
    /// `None` if nobody may.
    pub(crate) scope: Option<Arc<Scope>>,
}

/// What headers tell of the pictures of a request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outline {
    stills: Vec<images::Grid>,
    clips: Vec<ClipOutline>,
}

impl Outline {
    /// When the steps of each clip are shown, in seconds.
    pub(crate) fn times(&self) -> Vec<Vec<f64>> {
        self.clips.iter().map(|clip| clip.seconds.clone()).collect()
    }
}

/// What prepares pictures, on its callers' time.
pub(crate) struct Eyes {
    pool: Pool,
    recipe: Arc<Recipe>,
    clips: Option<Arc<ClipRecipe>>,
    marks: Marks,
    max_images: usize,
    shape: TowerShape,
    below: Option<FeatureTier>,
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
            clips: vision.clips.clone().map(Arc::new),
            marks: vision.marks,
            max_images: settings.max_images,
            shape: vision.tower.shape(),
            below: settings.below.clone(),
            room: Arc::new(Semaphore::new(all_room)),
            all_room,
        })
    }

    /// What the pool has done.
    pub(crate) fn meters(&self) -> images::Meters {
        self.pool.meters()
    }

    /// Looks at the headers of a request's pictures.
    ///
    /// # Errors
    /// When there are too many of them, or one cannot be used.
    pub(crate) fn outline(&self, request: &GenerateRequest) -> Result<Outline, Refusal> {
        let (most, found) = (self.max_images, request.images.len() + request.clips.len());
        if found > most {
            return Err(invalid(format!("at most {most} images are read in one request, got {found}")));
        }
        let still = |(at, image): (usize, &Image)| {
            let header = images::inspect(&image.bytes, self.pool.limits());
            header
                .and_then(|header| images::grid(&header, &self.recipe))
                .map_err(|e| unusable((STILL, at), &e))
        };
        let clip = |(at, clip): (usize, &Clip)| {
            let recipe = self.clips()?;
            let outline = images::clip_outline(&frames(clip, recipe), recipe, self.pool.limits());
            outline.map_err(|error| unusable((CLIP, at), &error))
        };
        Ok(Outline {
            stills: request.images.iter().enumerate().map(still).collect::<Result<_, _>>()?,
            clips: request.clips.iter().enumerate().map(clip).collect::<Result<_, _>>()?,
        })
    }

    /// Makes room in a prompt for pictures of which only the headers are read.
    ///
    /// # Errors
    /// When the prompt has room for more or fewer.
    pub(crate) fn lay_out(&self, ids: &[u32], outline: &Outline) -> Result<Layout, Refusal> {
        let stills: Vec<Grid> = outline.stills.iter().map(|grid| frame(*grid)).collect();
        let steps = outline.clips.iter().flat_map(|clip| vec![frame(clip.grid); clip.grid.t]);
        let steps: Vec<Grid> = steps.collect();
        lay_out(ids, (&stills, &steps), self.marks).map_err(|error| invalid(error.to_string()))
    }

    /// Decodes pictures and cuts them into patches, or fetches what was made of them before; they come in the order of the
    /// prompt.
    ///
    /// # Errors
    /// When one cannot be decoded, or too many wait for that.
    pub(crate) async fn prepare(
        &self,
        (stills, clips): (&[Image], &[Clip]),
        (outline, layout): (&Outline, &Layout),
        asking: &Asking,
    ) -> Result<Vec<Picture>, Refusal> {
        let urgency = match asking.priority {
            Priority::High => Urgency::High,
            Priority::Normal => Urgency::Normal,
            Priority::Low => Urgency::Low,
        };
        // A byte for each value; of a still picture, of one of its equal frames.
        let values = |patches: usize| patches * self.recipe.patch_values();
        let still: usize = outline.stills.iter().map(|grid| values(grid.patches())).sum();
        let moving: usize = outline.clips.iter().map(|clip| values(clip.grid.patches())).sum();
        // What was made of them before is larger, and may come in their place.
        let made = self.below.iter().map(|_| {
            let tokens: usize = layout.pictures.iter().map(|placed| placed.tokens.len()).sum();
            self.shape.feature_bytes(tokens)
        });
        let bytes = (still / self.recipe.temporal_patch_size + moving).max(made.sum());
        // All of a request's room at once: whoever holds some never waits for more.
        let units = bytes.div_ceil(UNIT).min(self.all_room) as u32;
        let room = Arc::clone(&self.room).acquire_many_owned(units).await;
        let room = room.map_err(|_| refusal((STILL, 0), PoolError::Stopped))?;
        let work = Work { urgency, scope: asking.scope.clone(), room: Arc::new(room) };
        let stills = stills.iter().zip(&outline.stills).enumerate();
        let stills = stills.map(|(at, (image, grid))| self.still((at, image), *grid, work.clone()));
        let clips = clips.iter().zip(&outline.clips).enumerate();
        let clips = clips.map(|(at, (clip, outline))| self.clip((at, clip), outline, work.clone()));
        let (stills, clips) = try_join(try_join_all(stills), try_join_all(clips)).await?;
        let (mut stills, mut steps) = (stills.into_iter(), clips.into_iter().flatten());
        let next = |placed: &Placed| {
            let is_still = layout.ids[placed.tokens.start] == self.marks.image;
            if is_still { stills.next() } else { steps.next() }
        };
        Ok(layout.pictures.iter().filter_map(next).collect())
    }

    async fn still(
        &self,
        (at, image): (usize, &Image),
        grid: images::Grid,
        work: Work,
    ) -> Result<Picture, Refusal> {
        let failed = |error| refusal((STILL, at), error);
        if self.below.is_some() {
            let hash = images::still_hash(&image.bytes, &self.recipe);
            if let Some(mut found) = self.fetch(&[hash], grid, &work).await {
                return found.pop().ok_or_else(|| failed(PoolError::Stopped));
            }
        }
        let submitted = self.pool.still(Arc::clone(&image.bytes), Arc::clone(&self.recipe), work.urgency);
        let made = Arc::new(submitted.map_err(failed)?.await.map_err(failed)?);
        Ok(Picture {
            hash: made.hash,
            grid: frame(grid),
            sight: Sight::Pixels(Pixels::Patches { made, step: 0 }),
            _room: Some(work.room),
        })
    }

    async fn clip(
        &self,
        (at, clip): (usize, &Clip),
        outline: &ClipOutline,
        work: Work,
    ) -> Result<Vec<Picture>, Refusal> {
        let failed = |error| refusal((CLIP, at), error);
        let (recipe, grid) = (self.clips()?, outline.grid);
        let hashes: Vec<[u8; 32]> = (0..grid.t).map(|step| images::step_hash(&outline.hash, step)).collect();
        if let Some(found) = self.fetch(&hashes, grid, &work).await {
            return Ok(found);
        }
        let submitted = self.pool.clip(frames(clip, recipe), Arc::clone(recipe), work.urgency);
        let made = Arc::new(submitted.map_err(failed)?.await.map_err(failed)?.patches);
        let picture = |(step, hash)| {
            let sight = Sight::Pixels(Pixels::Patches { made: Arc::clone(&made), step });
            Picture { hash, grid: frame(grid), sight, _room: Some(Arc::clone(&work.room)) }
        };
        Ok(hashes.into_iter().enumerate().map(picture).collect())
    }

    /// What was made before of pictures of that extent, if it was kept of all of them.
    async fn fetch(&self, hashes: &[[u8; 32]], grid: images::Grid, work: &Work) -> Option<Vec<Picture>> {
        let (below, scope) = (self.below.as_ref()?, work.scope.as_deref()?);
        if !hashes.iter().all(|hash| below.has(scope, hash)) {
            return None;
        }
        let (grid, mut found) = (frame(grid), Vec::with_capacity(hashes.len()));
        for hash in hashes {
            let features = below.fetch((scope, hash), grid.tokens(self.shape.merge), self.shape).await?;
            let sight = Sight::Features(Arc::new(features));
            found.push(Picture { hash: *hash, grid, sight, _room: Some(Arc::clone(&work.room)) });
        }
        Some(found)
    }

    /// How clips are read.
    fn clips(&self) -> Result<&Arc<ClipRecipe>, Refusal> {
        let told =
            "the model's files do not say how videos are read (video_preprocessor_config.json); send images";
        self.clips.as_ref().ok_or_else(|| invalid(told.to_owned()))
    }
}

/// All frames of a clip, whose rate is that of the recipe unless it is told.
fn frames(clip: &Clip, recipe: &ClipRecipe) -> Frames {
    let frames = clip.frames.iter().map(|frame| Arc::clone(&frame.bytes)).collect();
    Frames::Chosen { frames, fps: clip.fps.unwrap_or(recipe.fps) }
}

/// What all pictures of a request are prepared with.
#[derive(Clone)]
struct Work {
    urgency: Urgency,
    scope: Option<Arc<Scope>>,
    room: Arc<OwnedSemaphorePermit>,
}

/// One step of time.
fn frame(grid: images::Grid) -> Grid {
    Grid { h: grid.h, w: grid.w }
}

/// What people call them.
const STILL: &str = "image";
const CLIP: &str = "video";

fn invalid(message: String) -> Refusal {
    Refusal::InvalidParameter { param: PARAM.to_owned(), message }
}

/// Counts from 1, as people do.
fn unusable((what, at): (&str, usize), error: &ImageError) -> Refusal {
    invalid(format!("{what} {}: {error}", at + 1))
}

fn refusal(which: (&str, usize), error: PoolError) -> Refusal {
    match error {
        PoolError::Image(error) => unusable(which, &error),
        PoolError::Full { queued, .. } => Refusal::QueueFull { queued, retry_after: RETRY },
        other => Refusal::NotReady { reason: other.to_string() },
    }
}
