//! A decoded picture: upright, three bytes a pixel, no transparency.

use image::metadata::Orientation;
use image::{ColorType, DynamicImage, RgbImage};

use crate::error::ImageError;
use crate::grid::Size;
use crate::header::{Format, Limits, Opened, guarded, open, refused};

/// Rows of pixels, red, green and blue.
pub(crate) struct Picture {
    pub(crate) size: Size,
    pub(crate) rgb: Vec<u8>,
}

/// Decodes a picture within the limits.
///
/// As the reference has it, transparent pixels are laid onto white, and 16 bits a channel become 8 by their upper half.
/// (Its loader makes nearly everything white in *grey* pictures of 16 bits. That is a slip and is not repeated.)
pub(crate) fn decode(bytes: &[u8], limits: &Limits) -> Result<Picture, ImageError> {
    let Opened { header, orientation, decoder } = open(bytes, limits)?;
    let (format, color) = (header.format, decoder.color_type());
    let (width, height) = decoder.dimensions();
    let length = usize::try_from(decoder.total_bytes()).unwrap_or(usize::MAX);
    let stored = guarded(format, || {
        let mut stored = vec![0; length];
        decoder.read_image_boxed(&mut stored).map_err(|error| refused(format, &error, limits))?;
        Ok(stored)
    })?;
    let rgb = opaque(stored, color, format)?;
    if orientation == Orientation::NoTransforms {
        return Ok(Picture { size: Size { width: width as usize, height: height as usize }, rgb });
    }
    let image = RgbImage::from_raw(width, height, rgb).ok_or_else(|| ImageError::Malformed {
        format,
        reason: "it has fewer pixels than its header says".to_owned(),
    })?;
    let mut image = DynamicImage::ImageRgb8(image);
    image.apply_orientation(orientation);
    let size = Size { width: image.width() as usize, height: image.height() as usize };
    Ok(Picture { size, rgb: image.into_bytes() })
}

/// Three bytes a pixel from what a decoder leaves; 16-bit samples are in the machine's own order.
fn opaque(stored: Vec<u8>, color: ColorType, format: Format) -> Result<Vec<u8>, ImageError> {
    let narrow = |stored: Vec<u8>| -> Vec<u8> {
        stored.as_chunks().0.iter().map(|sample| (u16::from_ne_bytes(*sample) >> 8) as u8).collect()
    };
    let grey = |[value]: [u8; 1]| [value; 3];
    let grey_on_white = |[value, alpha]: [u8; 2]| [over_white(value, alpha); 3];
    let on_white = |[r, g, b, alpha]: [u8; 4]| [r, g, b].map(|value| over_white(value, alpha));
    Ok(match color {
        ColorType::Rgb8 => stored,
        ColorType::L8 => pixels(&stored, grey),
        ColorType::La8 => pixels(&stored, grey_on_white),
        ColorType::Rgba8 => pixels(&stored, on_white),
        ColorType::Rgb16 => narrow(stored),
        ColorType::L16 => pixels(&narrow(stored), grey),
        ColorType::La16 => pixels(&narrow(stored), grey_on_white),
        ColorType::Rgba16 => pixels(&narrow(stored), on_white),
        other => {
            return Err(ImageError::Malformed { format, reason: format!("its pixels are {other:?}") });
        }
    })
}

/// Pixels of three bytes from such of `N` samples.
fn pixels<const N: usize>(stored: &[u8], pixel: impl Fn([u8; N]) -> [u8; 3]) -> Vec<u8> {
    let stored = stored.as_chunks::<N>().0;
    let mut rgb = vec![0; stored.len() * 3];
    for (made, stored) in rgb.as_chunks_mut().0.iter_mut().zip(stored) {
        *made = pixel(*stored);
    }
    rgb
}

/// `value` weighed with white, rounded to the nearest in whole numbers.
fn over_white(value: u8, alpha: u8) -> u8 {
    let (value, alpha) = (u32::from(value), u32::from(alpha));
    let sum = value * alpha + 255 * (255 - alpha) + 128;
    ((sum + (sum >> 8)) >> 8) as u8
}
