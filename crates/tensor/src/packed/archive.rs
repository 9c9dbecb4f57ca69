//! Packed layers in a file, mapped and read in place the next time.
//!
//! A file is the letters `TIDEPACK`, the layers one after the other, each at a multiple of [`ALIGNMENT`] bytes, a
//! directory in JSON, and a tail of [`TAIL`] bytes: length and checksum of the directory, and [`LAYOUT_VERSION`]. The
//! directory stands at the end, so that a file is written in one go while layers are being packed. It has a key of the
//! writer's choice, and the place, the layout and the checksums (CRC-32C, one for each strip) of each layer. Everything is
//! checked before a layer is handed out; what does not hold is a [`Defect`], and the weights have to be packed again.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

use memory::Arena;
use memory::rung::Part;
use serde::{Deserialize, Serialize};

use super::streamed::Streaming;
use super::strip::ALIGNMENT;
use super::{Layout, Linear, Packer, Weights};
use crate::Pool;
use crate::stored::FileBytes;

/// What the packed bytes mean. Raise it whenever panels, groupings or the names of layers change.
pub const LAYOUT_VERSION: u32 = 3;

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

#[derive(Deserialize, Serialize)]
struct Entry {
    begin: usize,
    layout: Layout,
    /// Of each strip.
    checksums: Vec<u32>,
}

impl Entry {
    /// The strips, with their places in the file.
    fn strips(&self) -> impl Iterator<Item = Part> {
        self.checksums.iter().enumerate().map(|(strip, checksum)| {
            let range = self.layout.strip_bytes(strip);
            let offset = (self.begin + range.start) as u64;
            Part { offset, bytes: range.len(), checksum: *checksum }
        })
    }
}

/// Where layers will be read from once they have been checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Residence {
    /// In the mapped file, which the check brings into memory.
    Mapped,
    /// From the disk, whenever they are needed; what was checked leaves memory again.
    Disk,
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
    pub fn open(
        file: FileBytes,
        key: &str,
        pool: Option<&Pool>,
        residence: Residence,
    ) -> Result<Self, Defect> {
        let directory = directory(file.as_ref())?;
        if directory.key != key {
            return Err(Defect::Key);
        }
        let archive = Self { file, layers: directory.layers };
        archive.check(pool, residence)?;
        Ok(archive)
    }

    /// Checks that every layer is inside of the file, aligned, and what was written.
    fn check(&self, pool: Option<&Pool>, residence: Residence) -> Result<(), Defect> {
        let damage = |name: &str| Defect::Layer { layer: name.chars().take(120).collect() };
        if let Some((name, _)) = self.layers.iter().find(|(_, entry)| !self.is_placed(entry)) {
            return Err(damage(name));
        }
        let of_layer = |(name, entry): (_, &Entry)| entry.strips().map(move |strip| (name, strip)).collect();
        let strips: Vec<(&String, Part)> = self.layers.iter().flat_map::<Vec<_>, _>(of_layer).collect();
        let damaged: Vec<AtomicBool> = strips.iter().map(|_| AtomicBool::new(false)).collect();
        let threads = pool.map_or(1, Pool::threads);
        let work = |worker: usize| {
            for (number, (_, strip)) in strips.iter().enumerate().skip(worker).step_by(threads) {
                let range = strip.offset as usize..strip.offset as usize + strip.bytes;
                let is_sound = crc32c::crc32c(&self.file.as_ref()[range.clone()]) == strip.checksum;
                damaged[number].store(!is_sound, Ordering::Relaxed);
                if residence == Residence::Disk {
                    self.file.release(range);
                }
            }
        };
        match pool {
            Some(pool) => pool.run(&work),
            None => work(0),
        }
        let mut found = strips.iter().zip(&damaged).filter(|(_, damaged)| damaged.load(Ordering::Relaxed));
        found.next().map_or(Ok(()), |((name, _), _)| Err(damage(name)))
    }

    /// Whether a layer can be where its entry says: in the file, and where its elements can be read in place.
    fn is_placed(&self, entry: &Entry) -> bool {
        let end = entry.layout.checked_bytes().and_then(|bytes| entry.begin.checked_add(bytes));
        let bytes = end.and_then(|end| self.file.as_ref().get(entry.begin..end));
        let is_aligned = |bytes: &[u8]| {
            entry.begin.is_multiple_of(ALIGNMENT) && bytes.as_ptr().addr().is_multiple_of(align_of::<u64>())
        };
        bytes.is_some_and(is_aligned) && entry.checksums.len() == entry.layout.strips()
    }

    /// The layer of that name and layout, if there is one.
    fn entry(&self, name: &str, layout: Layout) -> Option<&Entry> {
        self.layers.get(name).filter(|entry| entry.layout == layout)
    }

    /// The weights of a layer in place, if there is one of that name and layout.
    pub(super) fn weights(&self, name: &str, layout: Layout) -> Option<Weights> {
        let begin = self.entry(name, layout)?.begin;
        Some(Weights::Stored { file: self.file.clone(), range: begin..begin + layout.bytes() })
    }

    /// The same to be read whenever they are needed.
    pub(super) fn streamed(&self, name: &str, layout: Layout, streaming: &mut Streaming) -> Option<Weights> {
        Some(Weights::Streamed(streaming.layer(self.entry(name, layout)?.strips())))
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
        let mut entry = self.begin_layer(layer.layout)?;
        let length = layer.layout.strip_bytes(0).len().max(1);
        for run in layer.strips() {
            run.bytes().chunks(length).try_for_each(|strip| self.strip(&mut entry, strip))?;
        }
        self.layers.insert(name.to_owned(), entry);
        Ok(())
    }

    /// Appends a layer as it is packed, so that no more than a strip of it is in memory; it is read from there whenever it
    /// is needed.
    ///
    /// # Errors
    /// Those of the writer, and if the system refuses the memory of a strip.
    pub fn streamed(
        &mut self,
        name: &str,
        packer: Packer,
        pool: Option<&Pool>,
        streaming: &mut Streaming,
    ) -> std::io::Result<Linear> {
        let layout = packer.layout();
        let mut entry = self.begin_layer(layout)?;
        let mut strip = Arena::zeroed(layout.strip_bytes(0).len()).map_err(std::io::Error::other)?;
        for number in 0..layout.strips() {
            let bytes = &mut strip.bytes_mut()[..layout.strip_bytes(number).len()];
            bytes.fill(0);
            packer.fill(layout.strip(number), bytes, pool);
            self.strip(&mut entry, bytes)?;
        }
        let weights = Weights::Streamed(streaming.layer(entry.strips()));
        self.layers.insert(name.to_owned(), entry);
        Ok(packer.with(weights))
    }

    fn begin_layer(&mut self, layout: Layout) -> std::io::Result<Entry> {
        let begin = self.written.next_multiple_of(ALIGNMENT);
        self.write(&[0; ALIGNMENT][..begin - self.written])?;
        Ok(Entry { begin, layout, checksums: Vec::with_capacity(layout.strips()) })
    }

    fn strip(&mut self, entry: &mut Entry, bytes: &[u8]) -> std::io::Result<()> {
        entry.checksums.push(crc32c::crc32c(bytes));
        self.write(bytes)
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
