//! What can be wrong with a picture, and with a recipe.

use thiserror::Error;

use crate::header::Format;

/// Why a picture or a clip cannot be used. Every one of them is the sender's to mend.
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum ImageError {
    /// There are no bytes.
    #[error("the image is empty (0 bytes); send a PNG, JPEG, WebP or GIF file")]
    Empty,
    /// More bytes than allowed.
    #[error("the image has {bytes} bytes, and at most {limit} are taken; send a smaller file")]
    TooManyBytes {
        /// Bytes that came.
        bytes: usize,
        /// Bytes that may come.
        limit: usize,
    },
    /// None of the formats that are read.
    #[error(
        "the image is neither PNG, JPEG, WebP nor GIF (it begins with the bytes {beginning}); convert it to one of these"
    )]
    UnknownFormat {
        /// The first bytes, in hexadecimal.
        beginning: String,
    },
    /// A side is 0 or longer than allowed.
    #[error("the {format} image is {width}x{height} pixels, and its sides may have 1 to {limit}; scale it")]
    Sides {
        /// The format of the file.
        format: Format,
        /// Pixels in a row, as the header says.
        width: u32,
        /// Rows, as the header says.
        height: u32,
        /// The longest side allowed.
        limit: u32,
    },
    /// More pixels than allowed.
    #[error(
        "the {format} image is {width}x{height} pixels, and at most {limit} pixels are decoded; scale it down"
    )]
    TooManyPixels {
        /// The format of the file.
        format: Format,
        /// Pixels in a row, as the header says.
        width: u32,
        /// Rows, as the header says.
        height: u32,
        /// The most pixels allowed.
        limit: u64,
    },
    /// Decoding would take more memory than allowed.
    #[error("decoding the {format} image would take more than {limit} bytes of memory; scale it down")]
    TooMuchMemory {
        /// The format of the file.
        format: Format,
        /// The most bytes a decoder may hold.
        limit: u64,
    },
    /// More scans of one progressive picture than allowed: each costs a walk over all pixels.
    #[error(
        "the JPEG image has {scans} scans, and at most {limit} are decoded; save it again with an ordinary encoder"
    )]
    TooManyScans {
        /// Scans in the file.
        scans: usize,
        /// Scans allowed.
        limit: usize,
    },
    /// The file contradicts itself, ends too early, or uses what is not supported.
    #[error(
        "the {format} image cannot be decoded: {reason}; check that the file is whole and opens elsewhere"
    )]
    Malformed {
        /// The format of the file.
        format: Format,
        /// What the decoder found.
        reason: String,
    },
    /// Too long and narrow to be resized.
    #[error(
        "the image is {width}x{height} pixels; one side may be at most 200 times the other, so crop or pad it"
    )]
    TooNarrow {
        /// Pixels in a row.
        width: usize,
        /// Rows.
        height: usize,
    },
    /// Fewer frames than the model takes together.
    #[error("the clip has {frames} frames, and at least {least} are needed")]
    TooFewFrames {
        /// Frames that came.
        frames: usize,
        /// The least number.
        least: usize,
    },
    /// More frames than allowed.
    #[error("the clip has {frames} frames, and at most {limit} are taken; send fewer")]
    TooManyFrames {
        /// Frames that came.
        frames: usize,
        /// The most frames allowed.
        limit: usize,
    },
    /// A frame that is not as large as the first.
    #[error(
        "frame {frame} of the clip is {width}x{height} pixels and the first one {first_width}x{first_height}; all must be alike"
    )]
    UnequalFrames {
        /// Which frame, counted from 0.
        frame: usize,
        /// Its pixels in a row.
        width: u32,
        /// Its rows.
        height: u32,
        /// Pixels in a row of the first frame.
        first_width: u32,
        /// Rows of the first frame.
        first_height: u32,
    },
    /// A rate of frames that means nothing.
    #[error("the clip has {fps} frames per second; the rate must be a positive number")]
    Rate {
        /// Frames per second that were stated.
        fps: f64,
    },
}

impl ImageError {
    /// A short fixed name of the kind, for counters.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::TooManyBytes { .. } => "too_many_bytes",
            Self::UnknownFormat { .. } => "unknown_format",
            Self::Sides { .. } => "sides",
            Self::TooManyPixels { .. } => "too_many_pixels",
            Self::TooMuchMemory { .. } => "too_much_memory",
            Self::TooManyScans { .. } => "too_many_scans",
            Self::Malformed { .. } => "malformed",
            Self::TooNarrow { .. } => "too_narrow",
            Self::TooFewFrames { .. } | Self::TooManyFrames { .. } => "frames",
            Self::UnequalFrames { .. } => "unequal_frames",
            Self::Rate { .. } => "rate",
        }
    }
}

/// Why a preprocessor configuration cannot be followed.
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum RecipeError {
    /// A key that has no default is not there.
    #[error("the preprocessor configuration lacks '{key}'; take the file from the model's own repository")]
    Missing {
        /// The key.
        key: &'static str,
    },
    /// A key holds something else than it should.
    #[error("'{key}' in the preprocessor configuration is {found}, expected {expected}")]
    Invalid {
        /// The key.
        key: &'static str,
        /// What stands there.
        found: String,
        /// What can stand there.
        expected: &'static str,
    },
}
