//! Pictures in the turns of a conversation: where they may come from, and what is refused by their headers.

use std::sync::Arc;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use futures::{StreamExt, TryStreamExt, stream};
use protocol::{Clip, Image};
use serde_json::Value;

use crate::app::App;
use crate::failure::Problem;
use crate::fetch::{FetchError, Room};
use crate::fields::{self, Fields};
use crate::settings::Limits;

/// Some clients leave out the padding at the end.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Pictures of one request that are fetched at once.
const AT_ONCE: usize = 4;

/// The pictures of one request, as they are found.
pub(crate) struct Pictures<'a> {
    most: &'a Limits,
    /// Whether pictures may be named that are elsewhere.
    reach: Reach,
    stills: Vec<Found>,
    clips: Vec<Scene>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Reach {
    Here,
    Elsewhere,
}

/// A picture that a part shows, and the path of what says so.
struct Found {
    path: String,
    source: Source,
}

enum Source {
    /// The picture itself.
    Held(Image),
    /// Where it is.
    Named(String),
}

/// The frames of a clip.
struct Scene {
    frames: Vec<Found>,
    fps: Option<f64>,
}

/// What a request shows, in the order of its parts.
#[derive(Default)]
pub(crate) struct Shown {
    pub(crate) images: Vec<Image>,
    pub(crate) clips: Vec<Clip>,
}

impl<'a> Pictures<'a> {
    pub(crate) fn of(app: &'a App) -> Self {
        let reach = if app.fetcher.is_open() { Reach::Elsewhere } else { Reach::Here };
        Self { most: &app.settings.limits, reach, stills: Vec::new(), clips: Vec::new() }
    }

    /// Reads the picture of a part of kind `image_url`: `{"image_url": {"url": …}}`, or the text alone, as some clients
    /// have it. Its header is read, so that whoever sends what cannot be used hears which part it is.
    pub(crate) fn take(&mut self, part: &mut Fields) -> Result<(), Problem> {
        let (url, path) = address(part, "image_url")?;
        self.check_room(&path)?;
        let found = self.found(url, path)?;
        self.stills.push(found);
        Ok(())
    }

    /// Reads the frames of a part of kind `video`, a list of pictures, and the rate at which they are shown, `fps`.
    pub(crate) fn take_frames(&mut self, part: &mut Fields) -> Result<(), Problem> {
        let path = part.path_of("video");
        let urls = match part.required("video")? {
            Value::Array(urls) => urls.into_iter().enumerate(),
            _ => return Err(Problem::invalid(path, FRAMES_WANTED)),
        };
        let urls = urls.map(|(at, url)| match url {
            Value::String(url) => Ok((url, format!("{path}[{at}]"))),
            other => Err(fields::wrong_type(format!("{path}[{at}]"), "a string", &other)),
        });
        let urls = urls.collect::<Result<Vec<_>, _>>()?;
        self.take_clip(part, urls, path)
    }

    /// Reads the frames of a part of kind `video_url`: JPEG files in one data URI, `data:video/jpeg;base64,…,…`.
    pub(crate) fn take_strip(&mut self, part: &mut Fields) -> Result<(), Problem> {
        let (url, path) = address(part, "video_url")?;
        let frames = url.get(..STRIP.len()).filter(|head| head.eq_ignore_ascii_case(STRIP));
        let frames = frames.map(|head| url[head.len()..].split(','));
        let frames = frames.ok_or_else(|| Problem::invalid(path.as_str(), FRAMES_WANTED))?;
        let urls = frames.enumerate().map(|(at, frame)| {
            let told = format!("{path} (frame {})", at + 1);
            (format!("data:image/jpeg;base64,{frame}"), told)
        });
        self.take_clip(part, urls.collect(), path)
    }

    fn take_clip(
        &mut self,
        part: &mut Fields,
        urls: Vec<(String, String)>,
        path: String,
    ) -> Result<(), Problem> {
        self.check_room(&path)?;
        let fps = part.number("fps", 0.01..=1000.0)?.map(f64::from);
        let (most, before) =
            (self.most.image.max_frames, self.clips.iter().map(|clip| clip.frames.len()).sum::<usize>());
        if before + urls.len() > most {
            let told = format!("the videos of a request may have at most {most} frames together.");
            return Err(Problem::invalid(path, told));
        }
        let frames = urls.into_iter().map(|(url, path)| self.found(url, path));
        let frames = frames.collect::<Result<_, _>>()?;
        self.clips.push(Scene { frames, fps });
        Ok(())
    }

    fn check_room(&self, path: &str) -> Result<(), Problem> {
        let most = self.most.images;
        if self.stills.len() + self.clips.len() < most {
            return Ok(());
        }
        Err(Problem::invalid(path, format!("a request may have at most {most} images.")))
    }

    fn found(&self, url: String, path: String) -> Result<Found, Problem> {
        let source = match self.reach {
            Reach::Elsewhere if is_elsewhere(&url) => Source::Named(url),
            _ => {
                let bytes = bytes(&url).map_err(|told| Problem::invalid(path.as_str(), told))?;
                Source::Held(checked(bytes, self.most, &path)?)
            }
        };
        Ok(Found { path, source })
    }

    /// All of them, in order, after those that are elsewhere have been fetched.
    ///
    /// # Errors
    /// When one cannot be fetched or used. All that are fetched together may be as large as a request may be.
    pub(crate) async fn taken(self, app: &App) -> Result<Shown, Problem> {
        let room = Room::of(self.most.body_bytes);
        let (most, room) = (self.most, &room);
        let clips: Vec<_> = self.clips.iter().map(|clip| (clip.frames.len(), clip.fps)).collect();
        let frames = self.clips.into_iter().flat_map(|clip| clip.frames);
        let images = self.stills.into_iter().chain(frames).map(|found| image(found, app, (most, room)));
        let mut images: Vec<Image> = stream::iter(images).buffered(AT_ONCE).try_collect().await?;
        let frames: usize = clips.iter().map(|(frames, _)| frames).sum();
        let mut frames = images.split_off(images.len() - frames).into_iter();
        let clip = |(count, fps)| Clip { frames: frames.by_ref().take(count).collect(), fps };
        Ok(Shown { clips: clips.into_iter().map(clip).collect(), images })
    }
}

/// How frames in one data URI begin.
const STRIP: &str = "data:video/jpeg;base64,";

/// What is said of everything else that is called a video.
const FRAMES_WANTED: &str = "expected the frames of the video, as a list of images under 'video' or as 'data:video/jpeg;base64,' \
    and one JPEG file after another with commas between; video files are not decoded here, and \
    'ffmpeg -i clip.mp4 -vf fps=2 %04d.jpg' makes frames of one.";

/// What `{kind: {"url": …}}` or `{kind: …}` says, and the path of that.
fn address(part: &mut Fields, kind: &str) -> Result<(String, String), Problem> {
    let path = part.path_of(kind);
    match part.required(kind)? {
        Value::String(url) => Ok((url, path)),
        Value::Object(object) => {
            let mut object = Fields::of(Value::Object(object), path)?;
            detail(&mut object)?;
            let url = object.text("url")?.ok_or_else(|| object.missing("url"))?;
            Ok((url, object.path_of("url")))
        }
        other => Err(fields::wrong_type(path, "an object with 'url'", &other)),
    }
}

/// A picture, fetched if it is elsewhere.
async fn image(found: Found, app: &App, (most, room): (&Limits, &Room)) -> Result<Image, Problem> {
    let Found { path, source } = found;
    let url = match source {
        Source::Held(image) => return Ok(image),
        Source::Named(url) => url,
    };
    let fetched = app.fetcher.fetch(&url, most.image.max_bytes, room).await;
    app.metrics.fetched(fetched.as_ref().map_or_else(FetchError::kind, |_| "fetched"));
    let bytes = fetched.map_err(|error| Problem::invalid(path.as_str(), format!("{error}.")))?;
    checked(bytes.into(), most, &path)
}

/// A picture whose header keeps the limits.
fn checked(bytes: Arc<[u8]>, most: &Limits, path: &str) -> Result<Image, Problem> {
    images::inspect(&bytes, &most.image).map_err(|error| Problem::invalid(path, format!("{error}.")))?;
    Ok(Image { bytes })
}

fn is_elsewhere(url: &str) -> bool {
    let scheme = url.split_once(':').map_or("", |(scheme, _)| scheme);
    ["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known))
}

/// How closely a picture is to be looked at is known and has no effect: models here read pictures at their full size.
fn detail(object: &mut Fields) -> Result<(), Problem> {
    match object.text("detail")?.as_deref() {
        None | Some("auto" | "low" | "high" | "original") => Ok(()),
        Some(_) => {
            let told = "expected one of 'auto', 'low', 'high' and 'original'.";
            Err(Problem::invalid(object.path_of("detail"), told))
        }
    }
}

/// The bytes that a data URI holds (RFC 2397), or why there are none.
fn bytes(url: &str) -> Result<Arc<[u8]>, String> {
    const WANTED: &str = "send the image itself, as 'data:image/png;base64,...'";
    let (scheme, rest) = url.split_once(':').ok_or_else(|| format!("it is no URI; {WANTED}."))?;
    if !scheme.eq_ignore_ascii_case("data") {
        let scheme: String = scheme.chars().take(16).collect();
        return Err(format!(
            "this server fetches nothing from other places ('{scheme}:'); {WANTED}, or have it started with --image-hosts."
        ));
    }
    let (head, data) = rest.split_once(',').ok_or_else(|| format!("the data URI has no comma; {WANTED}."))?;
    let mut marks = head.split(';');
    let media = marks.next().unwrap_or_default();
    if !media.get(..6).is_some_and(|kind| kind.eq_ignore_ascii_case("image/")) {
        let media: String = media.chars().take(40).collect();
        return Err(format!("the data URI holds '{media}' and no image; {WANTED}."));
    }
    if !marks.any(|mark| mark.eq_ignore_ascii_case("base64")) {
        return Err(format!("the data URI is not marked 'base64'; {WANTED}."));
    }
    let decoded = BASE64
        .decode(data.trim_ascii())
        .map_err(|error| format!("its base64 is broken: {error}; {WANTED}."))?;
    Ok(decoded.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_uris_are_read() {
        let check = |url: &str, expected: Result<&[u8], &str>| match (bytes(url), expected) {
            (Ok(found), Ok(expected)) => assert_eq!(&*found, expected, "{url}"),
            (Err(told), Err(expected)) => {
                assert!(told.contains(expected), "{url}: '{told}' lacks '{expected}'")
            }
            (found, _) => panic!("{url}: {found:?}"),
        };
        check("data:image/png;base64,AAEC", Ok(&[0, 1, 2]));
        check("DATA:IMAGE/JPEG;name=a.jpg;BASE64,AAE=", Ok(&[0, 1]));
        check("data:image/webp;base64,AAE", Ok(&[0, 1]));
        check("data:image/gif;base64, AAEC\n", Ok(&[0, 1, 2]));
        check("data:image/gif;base64,", Ok(&[]));
        check("AAEC", Err("it is no URI"));
        check("https://example.org/a.png", Err("fetches nothing from other places ('https:')"));
        check("file:///etc/passwd", Err("fetches nothing from other places ('file:')"));
        check("data:image/png;base64", Err("no comma"));
        check("data:text/plain;base64,AAEC", Err("holds 'text/plain' and no image"));
        check("data:,AAEC", Err("no image"));
        check("data:image/png,AAEC", Err("not marked 'base64'"));
        check("data:image/png;base64,A*EC", Err("its base64 is broken"));
        check("data:image/png;base64,A", Err("its base64 is broken"));
    }
}
