//! Packed layers in a file, mapped and read in place the next time.
//!
//! A file is the letters `TIDEPACK`, the layers one after the other, each at a multiple of [`ALIGNMENT`] bytes, a
//! directory in JSON, and a tail of [`TAIL`] bytes: length and checksum of the directory, and [`LAYOUT_VERSION`]. The
//! directory stands at the end, so that a file is written in one go while layers are being packed. It has a key of the
//! writer's choice, and the place, the layout and the checksum (CRC-32C) of each layer. Everything is checked before a
//! layer is handed out; what does not hold is a [`Defect`], and the weights have to be packed again.

use std::collections::BTreeMap;
use std::io::Write;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};

use super::{Layout, Linear, Weights};
use crate::Pool;
use crate::stored::FileBytes;

/// What the packed bytes mean. Raise it whenever panels, groupings or the names of layers change.
pub const LAYOUT_VERSION: u32 = 1;

/// What the place of a layer in the file is a multiple of: a page, since files are mapped by pages.
const ALIGNMENT: usize = 4096;

const MAGIC: [u8; 8] = *b"TIDEPACK";

/// Bytes behind the directory: its length, its checksum, the version.
const TAIL: usize = 16;

/// What is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Defect {
    /// It is no such file, or has been cut short.
    #[error("it is cut short or no file of packed weights")]
    Foreign,
    /// Another version of the program wrote it.
    #[error("its layout has version {found}, and this program's has {LAYOUT_VERSION}")]
    Version {
        /// The version in the file.
        found: u32,
    },
    /// Its directory cannot be right.
    #[error("its directory is damaged")]
    Directory,
    /// It was made of something else.
    #[error("it was made of other files or another type")]
    Key,
    /// A layer is not what was written.
    #[error("layer '{layer}' is damaged")]
    Layer {
        /// Which layer.
        layer: String,
    },
}

#[derive(Deserialize, Serialize)]
struct Directory {
    key: String,
    layers: BTreeMap<String, Entry>,
}

#[derive(Clone, Copy, Deserialize, Serialize)]
struct Entry {
    begin: usize,
    layout: Layout,
    checksum: u32,
}

/// A checked file of packed layers.
pub struct Archive {
    file: FileBytes,
    layers: BTreeMap<String, Entry>,
}

impl Archive {
    /// Checks a file that was written for `key`, every byte of it, on the threads of `pool` or on the caller's alone.
    ///
    /// # Errors
    /// Says what does not hold.
    pub fn open(file: FileBytes, key: &str, pool: Option<&Pool>) -> Result<Self, Defect> {
        let directory = directory(file.as_ref())?;
        if directory.key != key {
            return Err(Defect::Key);
        }
        let archive = Self { file, layers: directory.layers };
        archive.check(pool)?;
        Ok(archive)
    }

    /// Checks that every layer is inside of the file, aligned, and what was written.
    fn check(&self, pool: Option<&Pool>) -> Result<(), Defect> {
        let layers: Vec<(&String, &Entry)> = self.layers.iter().collect();
        let damaged: Vec<AtomicBool> = layers.iter().map(|_| AtomicBool::new(false)).collect();
        let threads = pool.map_or(1, Pool::threads);
        let work = |worker: usize| {
            for (number, (_, entry)) in layers.iter().enumerate().skip(worker).step_by(threads) {
                let bytes = self.range(entry).map(|range| &self.file.as_ref()[range]);
                let is_sound = bytes.is_some_and(|bytes| crc32c::crc32c(bytes) == entry.checksum);
                damaged[number].store(!is_sound, Ordering::Relaxed);
            }
        };
        match pool {
            Some(pool) => pool.run(&work),
            None => work(0),
        }
        let mut found = layers.iter().zip(&damaged).filter(|(_, damaged)| damaged.load(Ordering::Relaxed));
        match found.next() {
            Some(((name, _), _)) => Err(Defect::Layer { layer: name.chars().take(120).collect() }),
            None => Ok(()),
        }
    }

    /// Where a layer is, if that can be: in the file, and where its elements can be read in place.
    fn range(&self, entry: &Entry) -> Option<Range<usize>> {
        let end = entry.begin.checked_add(entry.layout.checked_bytes()?)?;
        let bytes = self.file.as_ref().get(entry.begin..end)?;
        (bytes.as_ptr().addr().is_multiple_of(align_of::<u64>())).then_some(entry.begin..end)
    }

    /// The weights of a layer, if there is one of that name and layout.
    pub(super) fn weights(&self, name: &str, layout: Layout) -> Option<Weights> {
        let entry = self.layers.get(name).filter(|entry| entry.layout == layout)?;
        Some(Weights::Stored { file: self.file.clone(), range: self.range(entry)? })
    }
}

/// The directory of a file, which is believed about nothing but itself yet.
fn directory(file: &[u8]) -> Result<Directory, Defect> {
    let body = file.strip_prefix(&MAGIC).ok_or(Defect::Foreign)?;
    let (body, tail) = body.split_last_chunk::<TAIL>().ok_or(Defect::Foreign)?;
    let (length, rest) = tail.split_at(8);
    let (checksum, version) = rest.split_at(4);
    let word = |bytes: &[u8]| bytes.iter().rev().fold(0u64, |word, byte| word << 8 | u64::from(*byte));
    if word(version) != u64::from(LAYOUT_VERSION) {
        // The tail of a file that was cut short is any bytes, of which the checksum knows.
        let found = u32::try_from(word(version)).unwrap_or_default();
        return Err(if found < 1 << 16 { Defect::Version { found } } else { Defect::Foreign });
    }
    let length = usize::try_from(word(length)).map_err(|_| Defect::Foreign)?;
    let begin = body.len().checked_sub(length).ok_or(Defect::Foreign)?;
    let json = &body[begin..];
    if u64::from(crc32c::crc32c(json)) != word(checksum) {
        return Err(Defect::Directory);
    }
    serde_json::from_slice(json).map_err(|_| Defect::Directory)
}

/// Writes a file of packed layers.
pub struct ArchiveWriter<W> {
    to: W,
    written: usize,
    layers: BTreeMap<String, Entry>,
}

impl<W: Write> ArchiveWriter<W> {
    /// Begins a file.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn begin(mut to: W) -> std::io::Result<Self> {
        to.write_all(&MAGIC)?;
        Ok(Self { to, written: MAGIC.len(), layers: BTreeMap::new() })
    }

    /// Bytes that have been written.
    pub fn written(&self) -> usize {
        self.written
    }

    /// Appends a layer. A second one of the same name takes the place of the first.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn layer(&mut self, name: &str, layer: &Linear) -> std::io::Result<()> {
        let begin = self.written.next_multiple_of(ALIGNMENT);
        let bytes = layer.weights.bytes();
        self.write(&[0; ALIGNMENT][..begin - self.written])?;
        self.write(bytes)?;
        let entry = Entry { begin, layout: layer.layout, checksum: crc32c::crc32c(bytes) };
        self.layers.insert(name.to_owned(), entry);
        Ok(())
    }

    /// Ends the file; `key` is what it must be opened with.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn finish(mut self, key: &str) -> std::io::Result<W> {
        let directory = Directory { key: key.to_owned(), layers: std::mem::take(&mut self.layers) };
        let json = serde_json::to_vec(&directory)?;
        self.write(&json)?;
        self.write(&(json.len() as u64).to_le_bytes())?;
        self.write(&crc32c::crc32c(&json).to_le_bytes())?;
        self.write(&LAYOUT_VERSION.to_le_bytes())?;
        Ok(self.to)
    }

    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.written += bytes.len();
        self.to.write_all(bytes)
    }
}
