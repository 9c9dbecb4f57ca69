//! Where keys, values and features of pictures go that memory has no room for: folders for each model.

use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::sync::Arc;

use engine::trace::{Entry, Recorder, Use};
use engine::{FeatureTier, KvTier};
use memory::files::Folder;
use memory::ladder::{Leftovers, OpenError as LadderOpenError, Writing};
use memory::rung::{DiskRung, Rung};
use memory::{Ladder, LadderSettings, PolicyChoice, replay};
use models::LoadedModel;
use tensor::Isa;

use crate::OpenError;
use crate::settings::{ByteSize, MemorySettings, VisionSettings};

/// Memory for pages on their way.
const BUFFERS: usize = 64 << 20;

/// Or so many pages, where they are large.
const BUFFERED_PAGES: usize = 8;

/// The tier for a model, if there is to be one.
pub(crate) fn kv_tier(
    (settings, recorder): (&MemorySettings, Option<&Recorder>),
    model: &LoadedModel,
    (name, isa): (&str, Isa),
) -> Result<Option<KvTier>, OpenError> {
    let Some(folder) = &settings.kv_dir else { return Ok(None) };
    let Some(identity) = &model.identity else {
        tracing::warn!(model = name, "its files do not tell which model it is, so --kv-dir is of no use");
        return Ok(None);
    };
    let layout = model.model.shape().kv;
    let path = folder.join(format!("kv-{}", plain(name)));
    let settings = LadderSettings {
        host_bytes: BUFFERS.max(BUFFERED_PAGES * layout.page_bytes()),
        below_bytes: usize::try_from(settings.kv_disk.0).unwrap_or(usize::MAX),
        writing: Writing::Through,
        policy: PolicyChoice::Known(settings.kv_policy),
        leftovers: Leftovers::Keep,
        recorder: recorder.map(uses),
        ..LadderSettings::default()
    };
    let ladder =
        open(&path, &settings).map_err(|source| OpenError::KvDir { path, source: Box::new(source) })?;
    // The same sums are made in another order on another instruction set.
    Ok(Some(KvTier::new(ladder, &format!("{identity} {isa} {layout:?}"))))
}

/// Takes down which pages are used. Their names are digests of text, so numbers drawn for this trace stand for them: nobody
/// can find out by trying what was asked.
fn uses(recorder: &Recorder) -> replay::Recorder {
    let (recorder, drawn) = (recorder.clone(), RandomState::new());
    replay::Recorder::new(move |used| {
        recorder.record(Entry::Use(Use { object: drawn.hash_one(used.key), bytes: used.bytes }));
    })
}

/// The place for features of pictures, if the model sees and there is to be one.
pub(crate) fn feature_tier(
    settings: &VisionSettings,
    model: &LoadedModel,
    name: &str,
) -> Result<Option<FeatureTier>, OpenError> {
    let Some(folder) = settings.vision_dir.as_ref().filter(|_| model.vision.is_some()) else {
        return Ok(None);
    };
    let path = folder.join(format!("vision-{}", plain(name)));
    let size = |bytes: ByteSize| usize::try_from(bytes.0).unwrap_or(usize::MAX);
    let settings = LadderSettings {
        host_bytes: BUFFERS.max(size(settings.vision_cache) / 4),
        below_bytes: size(settings.vision_disk),
        writing: Writing::Through,
        ..LadderSettings::default()
    };
    let ladder =
        open(&path, &settings).map_err(|source| OpenError::VisionDir { path, source: Box::new(source) })?;
    Ok(Some(FeatureTier::new(ladder)))
}

/// A model's name as that of a folder.
fn plain(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
    name.chars().take(100).map(plain).collect()
}

fn open(path: &Path, settings: &LadderSettings) -> Result<Ladder, LadderOpenError> {
    let unusable = |source| LadderOpenError::Folder { place: path.display().to_string(), source };
    let files = Folder::open(path, None).map_err(unusable)?;
    let rung: Arc<dyn Rung> = Arc::new(DiskRung::open(files)?);
    Ladder::open(settings, Some(rung))
}
