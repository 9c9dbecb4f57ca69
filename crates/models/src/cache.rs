//! Packed weights kept between starts: one file per model and type in a folder, bounded by the least recently used.
//!
//! A file is found by a key that covers everything its bytes follow from: which files the weights came from (device,
//! number, length and times of each, which change with every write and every replacement), the settings, how the
//! matrices are held, and the versions of the layout and of the program. Not the instruction set: the layout serves all of
//! them. A file appears under its name at once and whole: it is written under another name, synced, and renamed; so
//! processes that start together may write the same file, and whoever reads sees one of them. A file that is being read
//! may be removed; the reader keeps its mapping. Nothing that goes wrong here stops a start that can do without: the
//! weights are packed as without a cache, and the [`CacheError`] goes to the [`crate::Watch`]. Where weights are to be read
//! from here whenever they are needed, it is the error of the start.

mod error;
mod key;
#[cfg(test)]
pub(crate) mod tests;

use std::fs::{self, DirBuilder, File};
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use tensor::packed::archive::{Archive, ArchiveWriter, Residence};
use tensor::packed::streamed::Streaming;
use tensor::stored::FileBytes;
use tensor::{Linear, Packer, Pool};

pub use error::CacheError;
pub(crate) use key::Key;

/// Ending of the files.
const ENDING: &str = "pack";

/// Ending of files that are being written.
const UNFINISHED: &str = "unfinished";

/// A file that nobody has written to for so long was left behind by a process that was killed.
const ABANDONED: Duration = Duration::from_secs(3600);

/// A folder of packed weights.
#[derive(Clone, Debug)]
pub struct PackedCache {
    folder: PathBuf,
    budget: u64,
}

/// One file of the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheEntry {
    /// Which file; its name begins with those of model and type.
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// When it was last written or started from.
    pub used: SystemTime,
}

impl PackedCache {
    /// The cache in `folder`, whose files take at most `budget` bytes together. The folder is made when there is something
    /// to keep.
    pub fn new(folder: impl Into<PathBuf>, budget: u64) -> Self {
        Self { folder: folder.into(), budget }
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Its files, the one that was used last first. A folder that is not there has none.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn entries(&self) -> Result<Vec<CacheEntry>, CacheError> {
        let mut entries = self.files(ENDING)?;
        entries.sort_by(|a, b| b.used.cmp(&a.used).then(a.path.cmp(&b.path)));
        Ok(entries)
    }

    /// Removes all of its files, also those that somebody is writing, and returns how many bytes they had.
    ///
    /// # Errors
    /// When a file cannot be removed.
    pub fn clear(&self) -> Result<u64, CacheError> {
        let mut bytes = 0;
        for entry in [self.files(ENDING)?, self.files(UNFINISHED)?].concat() {
            remove(&entry.path)?;
            bytes += entry.bytes;
        }
        Ok(bytes)
    }

    /// The layers that were kept under `key`, if there are any; and marks them as used.
    pub(crate) fn open(
        &self,
        key: &Key,
        pool: Option<&Pool>,
        residence: Residence,
    ) -> Result<Option<Archive>, CacheError> {
        let path = self.path(key);
        let Ok(file) = File::options().append(true).open(&path) else { return Ok(None) };
        // Without it, the file is only taken for older than it is.
        file.set_modified(SystemTime::now()).ok();
        let bytes =
            FileBytes::map(&path).map_err(|error| CacheError::Unreadable { path: path.clone(), error })?;
        match Archive::open(bytes, key.digest(), pool, residence) {
            Ok(archive) => Ok(Some(archive)),
            Err(defect) => Err(CacheError::Stale { path, defect }),
        }
    }

    /// Begins to keep layers under `key`.
    pub(crate) fn begin(&self, key: &Key) -> Result<Keeping, CacheError> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let mut builder = DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.recursive(true).create(&self.folder).map_err(|error| self.unwritable(error))?;
        let (process, number) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = self.folder.join(format!("{}-{process}-{number}.{UNFINISHED}", key.digest()));
        let file = File::create_new(&path).map_err(|error| self.unwritable(error))?;
        let unfinished = Unfinished(path);
        let writer = ArchiveWriter::begin(BufWriter::new(file)).map_err(|error| self.unwritable(error))?;
        Ok(Keeping { cache: self.clone(), key: key.clone(), unfinished, writer })
    }

    /// The file for a key.
    pub(crate) fn path(&self, key: &Key) -> PathBuf {
        self.folder.join(format!("{}.{ENDING}", key.name()))
    }

    /// Removes what was used longest ago until the rest, `newest` included, is inside the budget; and what killed
    /// processes left.
    fn evict(&self, newest: &Path) -> Result<(), CacheError> {
        let now = SystemTime::now();
        for left in self.files(UNFINISHED)? {
            if now.duration_since(left.used).is_ok_and(|age| age > ABANDONED) {
                remove(&left.path)?;
            }
        }
        let (mut entries, mut total) = (self.entries()?, 0);
        // The new file counts as used last, whatever the clock says.
        entries.sort_by_key(|entry| entry.path != newest);
        for entry in entries {
            total += entry.bytes;
            if total > self.budget {
                remove(&entry.path)?;
            }
        }
        Ok(())
    }

    fn files(&self, ending: &str) -> Result<Vec<CacheEntry>, CacheError> {
        let unreadable = |error| CacheError::Folder { path: self.folder.clone(), error };
        let listing = match fs::read_dir(&self.folder) {
            Ok(listing) => listing,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(unreadable(error)),
        };
        let mut entries = Vec::new();
        for file in listing {
            let path = file.map_err(unreadable)?.path();
            if path.extension().is_none_or(|found| found != ending) {
                continue;
            }
            // One that is gone by now was evicted by somebody else.
            if let Ok(found) = fs::metadata(&path) {
                let used = found.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                entries.push(CacheEntry { path, bytes: found.len(), used });
            }
        }
        Ok(entries)
    }

    fn unwritable(&self, error: io::Error) -> CacheError {
        CacheError::Unwritable { path: self.folder.clone(), error }
    }
}

fn remove(path: &Path) -> Result<(), CacheError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(CacheError::Folder { path: path.to_owned(), error })
        }
        _ => Ok(()),
    }
}

/// A file under a name of its own, which is removed unless it was renamed.
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        fs::remove_file(&self.0).ok();
    }
}

/// Layers on their way into the cache. Dropped, they leave nothing behind.
pub(crate) struct Keeping {
    cache: PackedCache,
    key: Key,
    unfinished: Unfinished,
    writer: ArchiveWriter<BufWriter<File>>,
}

impl Keeping {
    /// Appends a layer.
    pub(crate) fn layer(&mut self, name: &str, layer: &Linear) -> Result<(), CacheError> {
        self.make_room(layer.bytes())?;
        self.writer.layer(name, layer).map_err(|error| self.cache.unwritable(error))
    }

    /// Appends a layer as it is packed; it is read from there whenever it is needed.
    pub(crate) fn streamed(
        &mut self,
        name: &str,
        packer: Packer,
        pool: Option<&Pool>,
        streaming: &mut Streaming,
    ) -> Result<Linear, CacheError> {
        self.make_room(packer.bytes())?;
        let layer = self.writer.streamed(name, packer, pool, streaming);
        layer.map_err(|error| self.cache.unwritable(error))
    }

    fn make_room(&self, bytes: usize) -> Result<(), CacheError> {
        let PackedCache { folder, budget } = &self.cache;
        match (self.writer.written() + bytes) as u64 <= *budget {
            true => Ok(()),
            false => Err(CacheError::OverBudget { path: folder.clone(), budget: *budget }),
        }
    }

    /// Puts the file in its place, durably, and makes room for it.
    pub(crate) fn finish(self) -> Result<(), CacheError> {
        let Self { cache, key, unfinished, writer } = self;
        let written = writer.finish(key.digest()).and_then(|writer| Ok(writer.into_inner()?));
        let file = written.map_err(|error| cache.unwritable(error))?;
        let path = cache.path(&key);
        let placed = file.sync_all().and_then(|()| fs::rename(&unfinished.0, &path));
        placed
            .and_then(|()| File::open(&cache.folder)?.sync_all())
            .map_err(|error| cache.unwritable(error))?;
        cache.evict(&path)
    }
}
