//! The seam between the disk rung and the disk: one folder of files that are written once, whole.

mod folder;
mod simulated;

use std::{fmt, io};

pub use folder::{Access, Folder};
pub use simulated::{Fault, SimulatedFiles};

/// One folder of files.
///
/// For the implementer:
/// - Calls come from several threads at once, but never two for the same name.
/// - What is written may be lost, in part or wholly, until `sync` of that file has returned; names that were made, changed
///   or removed may be lost until `sync_names` has returned. `rename` happens wholly or not at all.
/// - Addresses, lengths and offsets that are passed are multiples of 4 KiB, but for the read at the end of a file.
pub trait Files: Send + Sync + fmt::Debug {
    /// Where the files are, for people.
    fn place(&self) -> String;

    /// Keeps everybody else out until this is dropped; `WouldBlock` if somebody else is there already.
    ///
    /// # Errors
    /// What the system said.
    fn lock(&mut self) -> io::Result<()>;

    /// The files with their lengths, in any order. Files that are nobody's business may be among them.
    ///
    /// # Errors
    /// What the system said.
    fn list(&self) -> io::Result<Vec<(String, u64)>>;

    /// Writes a file of that content, in place of any that was there.
    ///
    /// # Errors
    /// What the system said; some of it may have been written.
    fn write(&self, name: &str, parts: [&[u8]; 2]) -> io::Result<()>;

    /// Reads from `offset` on until `into` is full or the file ends, and returns how many bytes that were.
    ///
    /// # Errors
    /// What the system said.
    fn read(&self, name: &str, offset: u64, into: &mut [u8]) -> io::Result<usize>;

    /// Returns when the content of the file survives a power loss.
    ///
    /// # Errors
    /// What the system said.
    fn sync(&self, name: &str) -> io::Result<()>;

    /// Returns when the names of the files survive a power loss.
    ///
    /// # Errors
    /// What the system said.
    fn sync_names(&self) -> io::Result<()>;

    /// Gives a file another name, in place of any file that had it.
    ///
    /// # Errors
    /// What the system said.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// What the system said.
    fn remove(&self, name: &str) -> io::Result<()>;
}
