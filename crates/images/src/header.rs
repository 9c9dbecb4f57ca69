//! What a file says about itself before anything is decoded, and the limits that it must keep.

use std::fmt;
use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use image::metadata::Orientation;
use image::{ImageDecoder, ImageFormat, ImageReader};

use crate::error::ImageError;

/// A format that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// Portable Network Graphics; of an animated one, its still picture.
    Png,
    /// JPEG, baseline and progressive.
    Jpeg,
    /// WebP, lossy and lossless; of an animated one, its first frame.
    WebP,
    /// The first frame of a GIF.
    Gif,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Png => "PNG",
            Self::Jpeg => "JPEG",
            Self::WebP => "WebP",
            Self::Gif => "GIF",
        })
    }
}

/// What is taken at most. All of it is checked before a pixel is decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of an encoded picture.
    pub max_bytes: usize,
    /// Pixels of a decoded picture.
    pub max_pixels: u64,
    /// Pixels along its longer side.
    pub max_side: u32,
    /// Bytes that a decoder may hold, the decoded picture among them.
    pub max_decoder_bytes: u64,
    /// Scans of a progressive JPEG. Ordinary ones have ten.
    pub max_scans: usize,
    /// Frames of a clip.
    pub max_frames: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_bytes: 20 << 20,
            max_pixels: 50_000_000,
            max_side: 32_768,
            max_decoder_bytes: 512 << 20,
            max_scans: 64,
            max_frames: 768,
        }
    }
}

/// What the header of a picture says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The format, told by the first bytes and not by a name.
    pub format: Format,
    /// Pixels in a row of the upright picture.
    pub width: u32,
    /// Rows of the upright picture.
    pub height: u32,
}

impl Header {
    /// Pixels in all.
    pub fn pixels(&self) -> u64 {
        u64::from(self.width) * u64::from(self.height)
    }
}

/// Reads the header of an encoded picture and checks it against `limits`. Width and height are those after the
/// orientation that the file's EXIF data asks for.
///
/// # Errors
/// If the file is none that is read, breaks off, or is larger than allowed.
pub fn inspect(bytes: &[u8], limits: &Limits) -> Result<Header, ImageError> {
    Ok(open(bytes, limits)?.header)
}

/// A file whose header has been read and found within the limits.
pub(crate) struct Opened<'a> {
    pub(crate) header: Header,
    pub(crate) orientation: Orientation,
    pub(crate) decoder: Box<dyn ImageDecoder + 'a>,
}

pub(crate) fn open<'a>(bytes: &'a [u8], limits: &Limits) -> Result<Opened<'a>, ImageError> {
    if bytes.is_empty() {
        return Err(ImageError::Empty);
    }
    if bytes.len() > limits.max_bytes {
        return Err(ImageError::TooManyBytes { bytes: bytes.len(), limit: limits.max_bytes });
    }
    let (format, reader_format) = recognise(bytes)?;
    match format {
        Format::Png => png_header(bytes, limits)?,
        Format::WebP => webp_chunks(bytes)?,
        Format::Jpeg => jpeg_scans(bytes, limits)?,
        Format::Gif => gif_header(bytes, limits)?,
    }
    let (decoder, orientation) = guarded(format, || {
        let mut reader = ImageReader::with_format(Cursor::new(bytes), reader_format);
        reader.limits(decoder_limits(limits));
        let mut decoder = reader.into_decoder().map_err(|error| refused(format, &error, limits))?;
        let (width, height) = decoder.dimensions();
        sides(format, width, height, limits)?;
        // EXIF data that cannot be read turns nothing: viewers show such a picture as it is stored.
        let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
        let decoder: Box<dyn ImageDecoder + 'a> = Box::new(decoder);
        Ok((decoder, orientation))
    })?;
    if decoder.total_bytes() > limits.max_decoder_bytes {
        return Err(ImageError::TooMuchMemory { format, limit: limits.max_decoder_bytes });
    }
    let (width, height) = decoder.dimensions();
    let turned = matches!(
        orientation,
        Orientation::Rotate90
            | Orientation::Rotate270
            | Orientation::Rotate90FlipH
            | Orientation::Rotate270FlipH
    );
    let (width, height) = if turned { (height, width) } else { (width, height) };
    Ok(Opened { header: Header { format, width, height }, orientation, decoder })
}

/// Runs a decoder. A panic in one is a file that it was not made for; the sender learns that and nobody else is hurt.
pub(crate) fn guarded<T>(
    format: Format,
    decode: impl FnOnce() -> Result<T, ImageError>,
) -> Result<T, ImageError> {
    catch_unwind(AssertUnwindSafe(decode))
        .unwrap_or_else(|_| Err(ImageError::Malformed { format, reason: "its decoder gave up".to_owned() }))
}

/// What a decoder's complaint means here.
pub(crate) fn refused(format: Format, error: &image::ImageError, limits: &Limits) -> ImageError {
    match error {
        image::ImageError::Limits(_) => ImageError::TooMuchMemory { format, limit: limits.max_decoder_bytes },
        other => ImageError::Malformed { format, reason: other.to_string() },
    }
}

fn recognise(bytes: &[u8]) -> Result<(Format, ImageFormat), ImageError> {
    match image::guess_format(bytes) {
        Ok(ImageFormat::Png) => Ok((Format::Png, ImageFormat::Png)),
        Ok(ImageFormat::Jpeg) => Ok((Format::Jpeg, ImageFormat::Jpeg)),
        Ok(ImageFormat::WebP) => Ok((Format::WebP, ImageFormat::WebP)),
        Ok(ImageFormat::Gif) => Ok((Format::Gif, ImageFormat::Gif)),
        _ => {
            let beginning: Vec<String> = bytes.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
            Err(ImageError::UnknownFormat { beginning: beginning.join(" ") })
        }
    }
}

fn decoder_limits(limits: &Limits) -> image::Limits {
    let mut theirs = image::Limits::no_limits();
    theirs.max_alloc = Some(limits.max_decoder_bytes);
    theirs
}

fn sides(format: Format, width: u32, height: u32, limits: &Limits) -> Result<(), ImageError> {
    let side = 1..=limits.max_side;
    if !side.contains(&width) || !side.contains(&height) {
        return Err(ImageError::Sides { format, width, height, limit: limits.max_side });
    }
    if u64::from(width) * u64::from(height) > limits.max_pixels {
        return Err(ImageError::TooManyPixels { format, width, height, limit: limits.max_pixels });
    }
    Ok(())
}

fn malformed(format: Format, reason: &str) -> ImageError {
    ImageError::Malformed { format, reason: reason.to_owned() }
}

/// The PNG decoder makes room for rows while it reads the header, so the sides are looked at before.
fn png_header(bytes: &[u8], limits: &Limits) -> Result<(), ImageError> {
    let number = |at: usize| {
        let four = bytes.get(at..at + 4).and_then(|four| four.try_into().ok());
        four.map(u32::from_be_bytes).ok_or_else(|| malformed(Format::Png, "it ends within its header"))
    };
    sides(Format::Png, number(16)?, number(20)?, limits)
}

/// The GIF decoder reads on behind the header before it says how large the picture is.
fn gif_header(bytes: &[u8], limits: &Limits) -> Result<(), ImageError> {
    match bytes {
        [_, _, _, _, _, _, w0, w1, h0, h1, ..] => {
            let (width, height) = (u16::from_le_bytes([*w0, *w1]), u16::from_le_bytes([*h0, *h1]));
            sides(Format::Gif, width.into(), height.into(), limits)
        }
        _ => Err(malformed(Format::Gif, "it ends within its header")),
    }
}

/// The WebP decoder makes room for as many bytes as a chunk says it has, so each must lie within the file.
fn webp_chunks(bytes: &[u8]) -> Result<(), ImageError> {
    let mut rest = bytes.get(12..).unwrap_or_default();
    while let Some((head, tail)) = rest.split_at_checked(8) {
        let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        if length > tail.len() {
            return Err(malformed(Format::WebP, "one of its chunks is longer than the file"));
        }
        rest = tail.get(length + length % 2..).unwrap_or_default();
    }
    Ok(())
}

/// A scan of a few bytes can cost a walk over all pixels. Their marks cannot occur in coded data, where every 0xff is
/// followed by 0 or a restart; one in an embedded preview counts too, which does no harm.
fn jpeg_scans(bytes: &[u8], limits: &Limits) -> Result<(), ImageError> {
    let scans = bytes.array_windows().filter(|pair| **pair == [0xff, 0xda]).count();
    if scans > limits.max_scans {
        return Err(ImageError::TooManyScans { scans, limit: limits.max_scans });
    }
    // The decoder makes up what is missing, and a model would be asked about a picture that is partly grey.
    let marks = |mark| bytes.array_windows().rposition(|pair: &[u8; 2]| *pair == [0xff, mark]);
    if marks(0xd9) < marks(0xda) {
        return Err(malformed(Format::Jpeg, "it breaks off before its end mark"));
    }
    Ok(())
}
