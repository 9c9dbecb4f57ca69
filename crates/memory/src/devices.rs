//! The seam between the device rung and a device: memory of its own that bytes are copied to and from.

mod opencl;
mod simulated;
#[cfg(test)]
mod tests;

use std::fmt;

pub use opencl::{Description, DeviceChoice, DeviceError, Kind, OpenCl, devices};
pub use simulated::{Misfortune, SimulatedDevice};

/// A device with memory of its own.
///
/// For the implementer:
/// - Calls come from several threads at once, but never two for the same region.
/// - A region that was given is there: a device that takes memory only when it is first written to may say so then, with
///   [`DeviceFault::Full`] from `write`.
/// - Dropping a region gives its memory back.
pub trait Device: Send + Sync + fmt::Debug {
    /// Memory of the device.
    type Region: Send + Sync + fmt::Debug;

    /// Which device it is, for people.
    fn place(&self) -> String;

    /// Memory of so many bytes, at least one, of unspecified content.
    ///
    /// # Errors
    /// When there is no room for it, or the device is lost.
    fn allocate(&self, bytes: usize) -> Result<Self::Region, DeviceFault>;

    /// Copies bytes to a region, from `offset` on. When it returns, they are there.
    ///
    /// # Errors
    /// When they are not.
    fn write(&self, region: &Self::Region, offset: usize, bytes: &[u8]) -> Result<(), DeviceFault>;

    /// Copies bytes from a region, from `offset` on.
    ///
    /// # Errors
    /// When that did not work.
    fn read(&self, region: &Self::Region, offset: usize, into: &mut [u8]) -> Result<(), DeviceFault>;
}

/// What can go wrong with memory of a device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceFault {
    /// There is no room.
    #[error("{cause}")]
    Full {
        /// What the driver said.
        cause: String,
    },
    /// The device is gone, and all that it held.
    #[error("{cause}")]
    Lost {
        /// What the driver said.
        cause: String,
    },
    /// It did not work this time.
    #[error("{cause}")]
    Failed {
        /// What the driver said.
        cause: String,
    },
}
