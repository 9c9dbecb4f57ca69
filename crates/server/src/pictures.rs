//! Pictures in the turns of a conversation: where they may come from, and what is refused by their headers.

use std::sync::Arc;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use protocol::Image;
use serde_json::Value;

use crate::failure::Problem;
use crate::fields::{self, Fields};
use crate::settings::Limits;

/// Some clients leave out the padding at the end.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The pictures of one request, as they are found.
pub(crate) struct Pictures<'a> {
    most: &'a Limits,
    images: Vec<Image>,
}

impl<'a> Pictures<'a> {
    pub(crate) fn within(most: &'a Limits) -> Self {
        Self { most, images: Vec::new() }
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
        if self.images.len() == self.most.images {
            let most = self.most.images;
            return Err(Problem::invalid(path, format!("a request may have at most {most} images.")));
        }
        let bytes = bytes(&url).map_err(|told| Problem::invalid(path.as_str(), told))?;
        images::inspect(&bytes, &self.most.image)
            .map_err(|error| Problem::invalid(path, format!("{error}.")))?;
        self.images.push(Image { bytes });
        Ok(())
    }

    pub(crate) fn taken(self) -> Vec<Image> {
        self.images
    }
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
        return Err(format!("this server fetches nothing from other places ('{scheme}:'); {WANTED}."));
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
