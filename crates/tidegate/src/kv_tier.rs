//! Where keys, values and features of pictures go that memory has no room for: a device, and folders for each model.

use std::hash::{BuildHasher, RandomState};

use engine::trace::{Entry, Recorder, Use};
use engine::{FeatureTier, KvTier};
use memory::ladder::{Leftovers, OpenError as LadderOpenError, Writing};
use memory::{Ladder, LadderSettings, Places, PolicyChoice, replay};
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
    let folder = settings.kv_dir.as_ref().map(|folder| folder.join(format!("kv-{}", plain(name))));
    let places = Places {
        device: settings.kv_device.clone().map(|device| (device, size(settings.kv_device_memory))),
        disk: folder.map(|path| (path, size(settings.kv_disk))),
    };
    if places == Places::default() {
        return Ok(None);
    }
    let Some(identity) = &model.identity else {
        tracing::warn!(
            model = name,
            "its files do not tell which model it is, so --kv-dir and --kv-device are of no use"
        );
        return Ok(None);
    };
    let layout = model.model.shape().kv;
    let least = 2 * layout.page_bytes();
    let rooms = [
        ("--kv-device-memory", places.device.as_ref().map(|(_, room)| *room)),
        ("--kv-disk", places.disk.as_ref().map(|(_, room)| *room)),
    ];
    for (option, room) in rooms {
        if let Some(found) = room.filter(|room| *room < least) {
            return Err(OpenError::KvRoom { option, least, found });
        }
    }
    let settings = LadderSettings {
        host_bytes: BUFFERS.max(BUFFERED_PAGES * layout.page_bytes()),
        writing: Writing::Through,
        policy: PolicyChoice::Known(settings.kv_policy),
        leftovers: Leftovers::Keep,
        recorder: recorder.map(uses),
        ..LadderSettings::default()
    };
    let ladder = open(&places, settings).map_err(|source| match (source, places) {
        (source @ LadderOpenError::Device(_), Places { device: Some((device, _)), .. })
        | (source, Places { device: Some((device, _)), disk: None }) => {
            OpenError::KvDevice { device, source: Box::new(source) }
        }
        (source, Places { disk, .. }) => {
            let path = disk.map(|(path, _)| path).unwrap_or_default();
            OpenError::KvDir { path, source: Box::new(source) }
        }
    })?;
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
    let places = Places { device: None, disk: Some((path.clone(), size(settings.vision_disk))) };
    let settings = LadderSettings {
        host_bytes: BUFFERS.max(size(settings.vision_cache) / 4),
        writing: Writing::Through,
        ..LadderSettings::default()
    };
    let ladder =
        open(&places, settings).map_err(|source| OpenError::VisionDir { path, source: Box::new(source) })?;
    Ok(Some(FeatureTier::new(ladder)))
}

/// A model's name as that of a folder.
fn plain(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
    name.chars().take(100).map(plain).collect()
}

fn size(bytes: ByteSize) -> usize {
    usize::try_from(bytes.0).unwrap_or(usize::MAX)
}

fn open(places: &Places, settings: LadderSettings) -> Result<Ladder, LadderOpenError> {
    let below = places.open(settings.writing, &settings.policy)?;
    let below_bytes = below.as_ref().map_or(0, |step| step.bytes);
    Ladder::open(&LadderSettings { below_bytes, ..settings }, below.map(|step| step.rung))
}
