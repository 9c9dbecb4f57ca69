//! A folder of the file system, read and written past the page cache where that is faster.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::Files;
use crate::buffers::BLOCK;
use crate::{Arena, MemoryError};

/// The file that is locked while somebody has the folder open. It stays when they have gone.
const LOCK: &str = "lock";

/// A file that is written to find out how to read.
const PROBE: &str = "probe.unfinished";

/// How much of it.
const PROBE_BYTES: usize = 16 << 20;

/// Bytes of one read or write of the probe.
const PROBE_STEP: usize = 2 << 20;

/// How files are read and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Past the page cache (`O_DIRECT`): no second copy in memory, none in the processor's time.
    Direct,
    /// Through the page cache.
    Buffered,
}

/// A folder of the file system.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    access: Access,
    lock: Option<File>,
    /// A file that is read without opening it again.
    held: Option<(String, File)>,
}

impl Folder {
    /// Opens a folder, readable by its owner alone, and creates it where it is missing. Files are accessed as said, or
    /// else as is found to be faster.
    ///
    /// # Errors
    /// If it cannot be created, or is not a folder.
    pub fn open(path: impl Into<PathBuf>, access: Option<Access>) -> io::Result<Self> {
        let path = path.into();
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&path)?;
        let mut folder = Self { path, access: Access::Buffered, lock: None, held: None };
        folder.access = access.map_or_else(|| folder.measure(), Ok)?;
        Ok(folder)
    }

    /// The folder of a file that is to be read again and again. The file is held open, so it is still there when it has
    /// lost its name to another one; it is read past the page cache where the file system allows that.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn holding(file: &Path) -> io::Result<Self> {
        let name = file.file_name().and_then(|name| name.to_str()).ok_or(io::ErrorKind::InvalidInput)?;
        let open = |access| options(access).read(true).open(file).map(|opened| (access, opened));
        let (access, held) = match open(Access::Direct) {
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => open(Access::Buffered)?,
            opened => opened?,
        };
        let path = file.parent().map(Path::to_owned).unwrap_or_default();
        Ok(Self { path, access, lock: None, held: Some((name.to_owned(), held)) })
    }

    /// How files are read and written.
    pub fn access(&self) -> Access {
        self.access
    }

    /// Reads the same bytes in both ways, from the disk and not from memory, and says which was faster. Whoever bypasses
    /// the page cache wins a draw, because nothing is held twice.
    fn measure(&self) -> io::Result<Access> {
        let path = self.path.join(PROBE);
        let rates = self.probe(&path);
        fs::remove_file(&path).or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => Ok(()),
            _ => Err(error),
        })?;
        match rates {
            Ok((direct, buffered)) if direct >= 0.9 * buffered => Ok(Access::Direct),
            Ok(_) => Ok(Access::Buffered),
            // Not every file system can be bypassed.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(Access::Buffered),
            Err(error) => Err(error),
        }
    }

    /// Bytes per second, read in either way.
    fn probe(&self, path: &Path) -> io::Result<(f64, f64)> {
        let refused = |error: MemoryError| io::Error::other(error);
        let mut arena = Arena::zeroed(PROBE_STEP).map_err(refused)?;
        let steps = || (0..PROBE_BYTES).step_by(PROBE_STEP);
        let file = options(Access::Direct).write(true).create(true).truncate(true).open(path)?;
        for offset in steps() {
            // Some disks do not store zeros.
            arena.bytes_mut().iter_mut().enumerate().for_each(|(i, byte)| *byte = (i * 131 + offset) as u8);
            file.write_all_at(arena.bytes(), offset as u64)?;
        }
        file.sync_data()?;
        let mut rate = |access| {
            let file = options(access).read(true).open(path)?;
            let began = Instant::now();
            steps().try_for_each(|offset| file.read_exact_at(arena.bytes_mut(), offset as u64))?;
            Ok::<f64, io::Error>(PROBE_BYTES as f64 / began.elapsed().as_secs_f64().max(1e-9))
        };
        // The file was written past the page cache, so the first buffered read comes from the disk too.
        Ok((rate(Access::Direct)?, rate(Access::Buffered)?))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

fn options(access: Access) -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    if access == Access::Direct {
        #[cfg(target_os = "linux")]
        options.custom_flags(libc::O_DIRECT);
    }
    options
}

fn read_at(file: &File, offset: u64, into: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while done < into.len() {
        match file.read_at(&mut into[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(count) => done += count,
            // Past the page cache, nothing can be read behind the end of a file that is inside of a block.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput && !done.is_multiple_of(BLOCK) => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

impl Drop for Folder {
    /// Closing the file alone would not do: a process that another thread is just starting holds a copy of it until it
    /// has become that other program, and would keep the folder locked.
    fn drop(&mut self) {
        if let Some(lock) = &self.lock {
            let _closing_it_must_do = lock.unlock();
        }
    }
}

impl Files for Folder {
    fn place(&self) -> String {
        self.path.display().to_string()
    }

    fn lock(&mut self) -> io::Result<()> {
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(self.path(LOCK))?;
        match file.try_lock() {
            Ok(()) => {
                self.lock = Some(file);
                Ok(())
            }
            Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let about = entry.metadata()?;
            if let (Ok(name), true) = (entry.file_name().into_string(), about.is_file()) {
                files.push((name, about.len()));
            }
        }
        Ok(files)
    }

    fn write(&self, name: &str, parts: [&[u8]; 2]) -> io::Result<()> {
        let file = options(self.access).write(true).create(true).truncate(true).open(self.path(name))?;
        file.write_all_at(parts[0], 0)?;
        file.write_all_at(parts[1], parts[0].len() as u64)
    }

    fn read(&self, name: &str, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        match &self.held {
            Some((held, file)) if held == name => read_at(file, offset, into),
            _ => read_at(&options(self.access).read(true).open(self.path(name))?, offset, into),
        }
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        File::open(self.path(name))?.sync_data()
    }

    fn sync_names(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path(from), self.path(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path(name))
    }
}
