//! Where objects go that memory has no room for, as users say it: a device, a folder, or one over the other.

use std::path::PathBuf;
use std::sync::Arc;

use crate::PolicyChoice;
use crate::devices::{DeviceChoice, OpenCl};
use crate::files::Folder;
use crate::ladder::{OpenError, Watermarks, Writing};
use crate::rung::{Cascade, CascadeSettings, DeviceRung, DiskRung, Rung, Step};

/// Where objects go that memory has no room for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// A device, and how many bytes of its memory.
    pub device: Option<(DeviceChoice, usize)>,
    /// A folder that nobody else uses, and how many bytes of files.
    pub disk: Option<(PathBuf, usize)>,
}

impl Places {
    /// The places as a rung for a ladder, with how many bytes may be there, if there are any. With both, objects go to the device first;
    /// `writing` says whether they are written to the disk at once, so that they survive the process.
    ///
    /// # Errors
    /// When there is no such device or it is too small, or the folder cannot be used or is in use.
    pub fn open(&self, writing: Writing, policy: &PolicyChoice) -> Result<Option<Step>, OpenError> {
        let device = self.device.as_ref().map(|(choice, bytes)| {
            let rung: Arc<dyn Rung> = Arc::new(DeviceRung::new(OpenCl::open(choice, *bytes)?));
            Ok::<_, OpenError>(Step { rung, bytes: *bytes })
        });
        let disk = self.disk.as_ref().map(|(path, bytes)| {
            let unusable = |source| OpenError::Folder { place: path.display().to_string(), source };
            let rung: Arc<dyn Rung> = Arc::new(DiskRung::open(Folder::open(path, None).map_err(unusable)?)?);
            Ok::<_, OpenError>(Step { rung, bytes: *bytes })
        });
        Ok(match (device.transpose()?, disk.transpose()?) {
            (Some(device), Some(disk)) => {
                let settings =
                    CascadeSettings { writing, policy: policy.clone(), watermarks: Watermarks::default() };
                let both = Cascade::new(device, disk, &settings)?;
                let bytes = both.budget();
                Some(Step { rung: Arc::new(both), bytes })
            }
            (device, disk) => device.or(disk),
        })
    }
}
