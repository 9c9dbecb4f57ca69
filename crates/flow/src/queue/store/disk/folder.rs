//! A folder of the file system.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::Disk;

/// The file that is locked while somebody has the folder open. It stays when they have gone.
const LOCK: &str = "lock";

/// A folder of the file system.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    lock: Option<File>,
    /// The file that was written last: the log writes to one file for a long time.
    open: Option<(String, File)>,
    /// The file that was read last.
    read: Option<(String, File)>,
}

impl Folder {
    /// Opens a folder and creates it where it is missing.
    ///
    /// # Errors
    /// If it cannot be created, or is not a folder.
    pub fn open(path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        create_durably(&path)?;
        Ok(Self { path, lock: None, open: None, read: None })
    }

    fn file(&mut self, name: &str) -> io::Result<&mut File> {
        if self.open.as_ref().is_none_or(|(open, _)| open != name) {
            let file = OpenOptions::new().read(true).write(true).open(self.path.join(name))?;
            self.open = Some((name.to_owned(), file));
        }
        match &mut self.open {
            Some((_, file)) => Ok(file),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }
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

impl Disk for Folder {
    fn place(&self) -> String {
        self.path.display().to_string()
    }

    fn lock(&mut self) -> io::Result<()> {
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(self.path.join(LOCK))?;
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

    fn create(&mut self, name: &str) -> io::Result<()> {
        let path = self.path.join(name);
        let file = OpenOptions::new().create(true).truncate(true).read(true).write(true).open(path)?;
        self.open = Some((name.to_owned(), file));
        Ok(())
    }

    fn write(&mut self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let file = self.file(name)?;
        file.seek(SeekFrom::Start(offset))?;
        file.write_all(bytes)
    }

    fn read(&mut self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        if self.read.as_ref().is_none_or(|(read, _)| read != name) {
            self.read = Some((name.to_owned(), File::open(self.path.join(name))?));
        }
        let Some((_, file)) = &mut self.read else { return Err(io::ErrorKind::NotFound.into()) };
        file.seek(SeekFrom::Start(offset))?;
        let mut bytes = Vec::with_capacity(length);
        file.take(length as u64).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn cut(&mut self, name: &str, length: u64) -> io::Result<()> {
        self.file(name)?.set_len(length)
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        self.file(name)?.sync_data()
    }

    fn sync_dir(&mut self) -> io::Result<()> {
        sync_folder(&self.path)
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        (self.open, self.read) = (None, None);
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        for file in [&mut self.open, &mut self.read] {
            file.take_if(|(open, _)| open == name);
        }
        fs::remove_file(self.path.join(name))
    }
}

/// Creates a folder and those above it so that a power loss does not take them back.
fn create_durably(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let above = match path.parent() {
        Some(above) if above != Path::new("") => above,
        _ => Path::new("."),
    };
    create_durably(above)?;
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists || !path.is_dir() => Err(error),
        _ => sync_folder(above),
    }
}

#[cfg(unix)]
fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Other systems do not open folders as files and keep names in their own journal.
#[cfg(not(unix))]
fn sync_folder(_path: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_was_let_go_is_free_though_a_child_still_holds_its_files() {
        let path = std::env::temp_dir().join(format!("flow-folder-{}", std::process::id()));
        let mut folder = Folder::open(&path).unwrap();
        folder.lock().unwrap();
        let inherited = folder.lock.as_ref().unwrap().try_clone().unwrap();
        let mut next = Folder::open(&path).unwrap();
        assert_eq!(next.lock().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(folder);
        next.lock().unwrap();
        drop((inherited, next));
        fs::remove_dir_all(&path).unwrap();
    }
}
