//! The seam between the log of a queue and the disk: one folder of files.

mod folder;
mod simulated;

use std::{fmt, io};

pub use folder::Folder;
pub use simulated::{Fault, SimulatedDisk};

/// One folder of files, used by one thread.
///
/// For the implementer:
/// - What is written may be lost until `sync` of that file has returned; names that were created, renamed or removed
///   may be lost until `sync_dir` has returned. `rename` happens wholly or not at all.
/// - Writing a range of bytes never harms the bytes beside it, even when power fails in the middle. Within the range
///   anything may be found afterwards.
/// - A file that cannot grow is an error of the kind `StorageFull`, `QuotaExceeded` or `FileTooLarge`; some of the
///   bytes may have been written.
/// - After `sync` has failed the log asks for nothing more but to be dropped.
pub trait Disk: Send + fmt::Debug + 'static {
    /// Where the files are, for people.
    fn place(&self) -> String;

    /// Keeps everybody else out until the disk is dropped; `WouldBlock` if somebody else is there already.
    fn lock(&mut self) -> io::Result<()>;

    /// The files with their lengths, in any order. Files that are nobody's business may be among them.
    fn list(&self) -> io::Result<Vec<(String, u64)>>;

    /// An empty file of that name; one that was there is emptied.
    fn create(&mut self, name: &str) -> io::Result<()>;

    /// Writes all bytes from the offset on, at or before the end of the file.
    fn write(&mut self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// The bytes from the offset on, fewer where the file ends.
    fn read(&mut self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>>;

    /// Cuts a file to a length that is not larger than the one it has.
    fn cut(&mut self, name: &str, length: u64) -> io::Result<()>;

    /// Returns when the content of the file survives a power loss.
    fn sync(&mut self, name: &str) -> io::Result<()>;

    /// Returns when the names of the files survive a power loss.
    fn sync_dir(&mut self) -> io::Result<()>;

    /// Gives a file another name, which no file has.
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    fn remove(&mut self, name: &str) -> io::Result<()>;
}
