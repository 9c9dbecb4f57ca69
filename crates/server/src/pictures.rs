//! Pictures in the turns of a conversation: where they may come from, and what is refused by their headers.

use std::sync::Arc;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use futures::{StreamExt, TryStreamExt, stream};
use protocol::Image;
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
    found: Vec<Found>,
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

impl<'a> Pictures<'a> {
    pub(crate) fn of(app: &'a App) -> Self {
        let reach = if app.fetcher.is_open() { Reach::Elsewhere } else { Reach::Here };
        Self { most: &app.settings.limits, reach, found: Vec::new() }
    }

    /// Reads the picture of a part of kind `image_url`: `{"image_url": {"url": …}}`, or the text alone, as some clients
    /// have it. Its header is read, so that whoever sends what cannot be used hears which part it is.
    pub(crate) fn take(&mut self, part: &mut Fields) -> Result<(), Problem> {
        let path = part.path_of("image_url");
        let (url, path) = match part.required("image_url")? {
            Value::String(url) => (url, path),
            Value::Object(object) => {
                let mut object = Fields::of(Value::Object(object), path)?;
                detail(&mut object)?;
                let url = object.text("url")?.ok_or_else(|| object.missing("url"))?;
                (url, object.path_of("url"))
            }
            other => return Err(fields::wrong_type(path, "an object with 'url'", &other)),
        };
        if self.found.len() == self.most.images {
            let most = self.most.images;
            return Err(Problem::invalid(path, format!("a request may have at most {most} images.")));
        }
        let source = match self.reach {
            Reach::Elsewhere if is_elsewhere(&url) => Source::Named(url),
            _ => {
                let bytes = bytes(&url).map_err(|told| Problem::invalid(path.as_str(), told))?;
                Source::Held(checked(bytes, self.most, &path)?)
            }
        };
        self.found.push(Found { path, source });
        Ok(())
    }

    /// All of them, in order, after those that are elsewhere have been fetched.
    ///
    /// # Errors
    /// When one cannot be fetched or used. All that are fetched together may be as large as a request may be.
    pub(crate) async fn taken(self, app: &App) -> Result<Vec<Image>, Problem> {
        let room = Room::of(self.most.body_bytes);
        let (most, room) = (self.most, &room);
        let images = self.found.into_iter().map(|found| image(found, app, (most, room)));
        stream::iter(images).buffered(AT_ONCE).try_collect().await
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
