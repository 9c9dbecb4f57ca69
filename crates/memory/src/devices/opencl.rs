//! Memory of a device that OpenCL reaches: the drivers of NVIDIA, AMD and Intel bring it for their GPUs, PoCL for processors.
//!
//! Transfers block the ladder's thread that makes them, and each has a queue of its own, so that a device with an engine for
//! each direction copies both ways at once.

mod library;

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Device, DeviceFault};
use library::{Code, DeviceId, Owned, Platform};

/// A device, and a context on it.
pub struct OpenCl {
    description: Description,
    device: DeviceId,
    /// Queues that no transfer uses just now.
    queues: Mutex<Vec<Owned>>,
    context: &'static Owned,
}

/// A context for each device that was ever opened. They stay: PoCL shuts its device down with the last one, and crashes when
/// another is made meanwhile. Held by whoever asks a driver what may initialise it, which none expects from two threads.
static CONTEXTS: Mutex<Contexts> = Mutex::new(Vec::new());

type Contexts = Vec<(DeviceId, &'static Owned)>;

fn contexts() -> MutexGuard<'static, Contexts> {
    CONTEXTS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a device is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Description {
    /// Its number among all devices of the system.
    pub index: usize,
    /// What it calls itself.
    pub name: String,
    /// What its driver calls itself.
    pub platform: String,
    /// What kind of device it is.
    pub kind: Kind,
    /// Bytes of its memory.
    pub memory: u64,
}

/// Kinds of devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A GPU.
    Gpu,
    /// Another device with memory of its own.
    Accelerator,
    /// The processor, whose memory is that of the host.
    Processor,
    /// Something else.
    Other,
}

impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Gpu => "GPU",
            Kind::Accelerator => "accelerator",
            Kind::Processor => "the processor",
            Kind::Other => "another kind of device",
        };
        let Self { index, name, platform, memory, .. } = self;
        write!(f, "{index}: {name} ({kind}, {} MiB, {platform})", memory >> 20)
    }
}

/// Which device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The first that has memory of its own.
    #[default]
    Auto,
    /// The one of that number.
    Index(usize),
    /// The first whose name, or whose driver's, has this in it, in capitals or not.
    Name(String),
}

impl FromStr for DeviceChoice {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text.parse() {
            Ok(index) => Self::Index(index),
            Err(_) if text == "auto" => Self::Auto,
            Err(_) => Self::Name(text.to_owned()),
        })
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Index(index) => write!(f, "{index}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// Why no device can be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// There is no OpenCL.
    #[error(
        "there is no OpenCL on this system ({cause}); install its loader (ocl-icd-libopencl1 on Debian and Ubuntu) and the \
         driver of the device"
    )]
    NoLoader {
        /// What the system said.
        cause: String,
    },
    /// OpenCL knows of no device.
    #[error(
        "OpenCL finds no device; install the driver of yours: that of NVIDIA or AMD brings one, for Intel it is \
         intel-opencl-icd, and pocl-opencl-icd makes a device of the processor"
    )]
    NoDevice,
    /// None of the devices is meant.
    #[error("there is no device '{choice}'; the devices are {}", list(found))]
    Unknown {
        /// Which one was asked for.
        choice: DeviceChoice,
        /// Those that there are.
        found: Vec<Description>,
    },
    /// There is less memory than was asked for.
    #[error("{device} has less than the {bytes} bytes that are to be kept there")]
    TooSmall {
        /// Which device.
        device: Description,
        /// Bytes that were asked for.
        bytes: usize,
    },
    /// The driver refused something.
    #[error("cannot {act}: {}", told(*code))]
    Refused {
        /// What was to be done.
        act: &'static str,
        /// What the driver said.
        code: i32,
    },
}

fn list(found: &[Description]) -> String {
    let found: Vec<String> = found.iter().map(Description::to_string).collect();
    format!("{}; 'auto' takes the first that is not the processor", found.join(", "))
}

/// What a driver means, by the name that the specification gives it.
fn told(code: Code) -> String {
    let name = match code {
        library::DEVICE_NOT_AVAILABLE => "CL_DEVICE_NOT_AVAILABLE",
        library::MEM_OBJECT_ALLOCATION_FAILURE => "CL_MEM_OBJECT_ALLOCATION_FAILURE",
        library::OUT_OF_RESOURCES => "CL_OUT_OF_RESOURCES",
        library::OUT_OF_HOST_MEMORY => "CL_OUT_OF_HOST_MEMORY",
        library::INVALID_BUFFER_SIZE => "CL_INVALID_BUFFER_SIZE",
        _ => return format!("OpenCL error {code}"),
    };
    format!("{name} ({code})")
}

/// All devices of the system.
///
/// # Errors
/// When there is no OpenCL, or it knows of no device.
pub fn devices() -> Result<Vec<Description>, DeviceError> {
    Ok(all(&contexts())?.into_iter().map(|(description, _)| description).collect())
}

fn all(_alone: &Contexts) -> Result<Vec<(Description, DeviceId)>, DeviceError> {
    let refused = |code| DeviceError::Refused { act: "list the devices", code };
    let platforms = match Platform::all().map_err(|cause| DeviceError::NoLoader { cause })? {
        Err(library::PLATFORM_NOT_FOUND) => Vec::new(),
        platforms => platforms.map_err(refused)?,
    };
    let mut found = Vec::new();
    for platform in platforms {
        let devices = match platform.devices() {
            Err(library::DEVICE_NOT_FOUND) => continue,
            devices => devices.map_err(refused)?,
        };
        for device in devices {
            let description = Description {
                index: found.len(),
                name: text(&device.info(library::DEVICE_NAME).map_err(refused)?),
                platform: text(&platform.info(library::PLATFORM_NAME).map_err(refused)?),
                kind: match number(&device.info(library::DEVICE_TYPE).map_err(refused)?) {
                    kind if kind & library::TYPE_GPU != 0 => Kind::Gpu,
                    kind if kind & library::TYPE_ACCELERATOR != 0 => Kind::Accelerator,
                    kind if kind & library::TYPE_CPU != 0 => Kind::Processor,
                    _ => Kind::Other,
                },
                memory: number(&device.info(library::DEVICE_GLOBAL_MEM_SIZE).map_err(refused)?),
            };
            found.push((description, device));
        }
    }
    if found.is_empty() { Err(DeviceError::NoDevice) } else { Ok(found) }
}

/// A text as drivers give it, with a zero at its end.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end_matches('\0').trim().to_owned()
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

impl DeviceChoice {
    fn is(&self, device: &Description) -> bool {
        match self {
            Self::Auto => matches!(device.kind, Kind::Gpu | Kind::Accelerator),
            Self::Index(index) => device.index == *index,
            Self::Name(name) => {
                let has = |text: &str| text.to_lowercase().contains(&name.to_lowercase());
                has(&device.name) || has(&device.platform)
            }
        }
    }
}

impl OpenCl {
    /// Opens a device of which so many bytes are to be used.
    ///
    /// # Errors
    /// When there is no such device, it has less memory, or its driver refuses.
    pub fn open(choice: &DeviceChoice, bytes: usize) -> Result<Self, DeviceError> {
        let mut contexts = contexts();
        let mut found = all(&contexts)?;
        let Some(at) = found.iter().position(|(description, _)| choice.is(description)) else {
            let found = found.into_iter().map(|(description, _)| description).collect();
            return Err(DeviceError::Unknown { choice: choice.clone(), found });
        };
        let (description, device) = found.swap_remove(at);
        if bytes as u64 > description.memory {
            return Err(DeviceError::TooSmall { device: description, bytes });
        }
        let context = match contexts.iter().find(|(other, _)| *other == device) {
            Some((_, context)) => context,
            None => {
                let refused = |code| DeviceError::Refused { act: "open the device", code };
                let context = &*Box::leak(Box::new(device.context().map_err(refused)?));
                contexts.push((device, context));
                context
            }
        };
        Ok(Self { description, device, queues: Mutex::default(), context })
    }

    /// What it is.
    pub fn description(&self) -> &Description {
        &self.description
    }

    fn transfer(&self, transfer: impl FnOnce(&Owned) -> Result<(), Code>) -> Result<(), Code> {
        let queues = || self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        let free = queues().pop();
        let queue = free.map_or_else(|| self.device.queue(self.context), Ok)?;
        transfer(&queue)?;
        // One on which something failed may be of no use any more.
        queues().push(queue);
        Ok(())
    }
}

impl Device for OpenCl {
    type Region = Region;

    fn place(&self) -> String {
        format!("device {}", self.description.name)
    }

    fn allocate(&self, bytes: usize) -> Result<Region, DeviceFault> {
        self.device.buffer(self.context, bytes).map(Region).map_err(|code| fault(code, "allocate"))
    }

    fn write(&self, region: &Region, offset: usize, bytes: &[u8]) -> Result<(), DeviceFault> {
        let write = |queue: &Owned| self.device.write(queue, (&region.0, offset), bytes);
        self.transfer(write).map_err(|code| fault(code, "write"))
    }

    fn read(&self, region: &Region, offset: usize, into: &mut [u8]) -> Result<(), DeviceFault> {
        let read = |queue: &Owned| self.device.read(queue, (&region.0, offset), into);
        // What is there has its memory: whatever is short now is none of it.
        self.transfer(read).map_err(|code| match fault(code, "read") {
            DeviceFault::Full { cause } => DeviceFault::Failed { cause },
            fault => fault,
        })
    }
}

/// What a code means for the ladder. Drivers find memory when a buffer is first written to, so that may be refused late.
fn fault(code: Code, act: &str) -> DeviceFault {
    let cause = format!("{act}: {}", told(code));
    match code {
        library::MEM_OBJECT_ALLOCATION_FAILURE
        | library::OUT_OF_RESOURCES
        | library::OUT_OF_HOST_MEMORY
        | library::INVALID_BUFFER_SIZE => DeviceFault::Full { cause },
        library::DEVICE_NOT_AVAILABLE
        | library::INVALID_DEVICE
        | library::INVALID_CONTEXT
        | library::INVALID_COMMAND_QUEUE
        | library::INVALID_MEM_OBJECT => DeviceFault::Lost { cause },
        _ => DeviceFault::Failed { cause },
    }
}

/// Memory of a device.
pub struct Region(Owned);

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Region").finish_non_exhaustive()
    }
}

impl fmt::Debug for OpenCl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenCl").field("device", &self.description).finish_non_exhaustive()
    }
}
