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
    Ok(match color {
        ColorType::Rgb8 => stored,
        ColorType::L8 => repeated(&stored),
        ColorType::La8 => on_white_grey(&stored),
        ColorType::Rgba8 => on_white(&stored),
        ColorType::Rgb16 => narrow(stored),
        ColorType::L16 => repeated(&narrow(stored)),
        ColorType::La16 => on_white_grey(&narrow(stored)),
        ColorType::Rgba16 => on_white(&narrow(stored)),
        other => {
            return Err(ImageError::Malformed { format, reason: format!("its pixels are {other:?}") });
        }
    })
}

fn repeated(grey: &[u8]) -> Vec<u8> {
    grey.iter().flat_map(|value| [*value; 3]).collect()
}

fn on_white_grey(stored: &[u8]) -> Vec<u8> {
    stored.as_chunks().0.iter().flat_map(|[grey, alpha]| [over_white(*grey, *alpha); 3]).collect()
}

fn on_white(stored: &[u8]) -> Vec<u8> {
    let pixels = stored.as_chunks().0.iter();
    pixels
        .flat_map(|[red, green, blue, alpha]| [red, green, blue].map(|value| over_white(*value, *alpha)))
        .collect()
}

/// `value` weighed with white, rounded to the nearest in whole numbers.
fn over_white(value: u8, alpha: u8) -> u8 {
    let (value, alpha) = (u32::from(value), u32::from(alpha));
    let sum = value * alpha + 255 * (255 - alpha) + 128;
    ((sum + (sum >> 8)) >> 8) as u8
}
