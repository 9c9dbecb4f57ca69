//! Tensors put away in memory, on a device and on the disk, and brought back.

use std::path::PathBuf;

use memory::devices::DeviceChoice;
use memory::eviction::{Policy, PolicyChoice};
use memory::rung::Medium;
use memory::{Buffer, Loaded, OffloadError, OffloaderSettings, Residency};
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyDict};
use serde_json::json;
use tidegate::memory::{MemoryWatch, Watermarks, heed};

use crate::awaitable::Awaitable;
use crate::call::setting;
use crate::dlpack::Lent;
use crate::{errors, runtime};

/// So many bytes are copied by the thread that is at it; more would hold up whoever waits for that thread, or for the
/// interpreter.
const AT_ONCE: usize = 256 << 10;

/// The memory of a tensor that was loaded, for whoever looks at it by its address while this lives. It is the offloader's
/// where there is room: that has been touched before, and fresh memory costs several times as much as the copy.
#[pyclass(frozen)]
pub(crate) struct LoadedMemory {
    address: usize,
    bytes: usize,
    _held: Held,
}

/// What keeps the memory there.
enum Held {
    Shared { _loaded: Loaded },
    Room { _buffer: Buffer },
    Own { _bytes: Vec<u8> },
}

impl LoadedMemory {
    /// The memory of the offloader's own tensor, which nobody may write to.
    fn shared(loaded: Loaded) -> Self {
        let (address, bytes) = (loaded.as_ptr().expose_provenance(), loaded.len());
        Self { address, bytes, _held: Held::Shared { _loaded: loaded } }
    }

    /// A copy, which may be written to.
    fn copy(offloader: &memory::Offloader, loaded: &[u8]) -> Self {
        let bytes = loaded.len();
        if let Some(mut buffer) = offloader.try_staging(bytes) {
            buffer.copy_from_slice(loaded);
            let address = buffer.as_mut_ptr().expose_provenance();
            return Self { address, bytes, _held: Held::Room { _buffer: buffer } };
        }
        let mut own = loaded.to_vec();
        Self { address: own.as_mut_ptr().expose_provenance(), bytes, _held: Held::Own { _bytes: own } }
    }
}

#[pymethods]
impl LoadedMemory {
    /// Where it begins. It stays there for as long as this object does.
    #[getter]
    fn address(&self) -> usize {
        self.address
    }

    fn __len__(&self) -> usize {
        self.bytes
    }
}

/// Keeps byte strings by name, within a budget of memory over a folder on the disk.
#[pyclass(frozen)]
pub(crate) struct Offloader {
    /// Goes first, so that nobody uses the offloader any more when its folder is given up.
    _watch: Option<MemoryWatch>,
    offloader: memory::Offloader,
}

fn failed(error: OffloadError) -> PyErr {
    let kind = match error {
        OffloadError::Unknown { .. } => "UnknownTaskError",
        _ => "OffloadFailedError",
    };
    errors::exception(kind, error, &[])
}

fn policy(name: &str) -> PyResult<PolicyChoice> {
    let known = name.parse::<Policy>().map(PolicyChoice::Known);
    known.map_err(|error| errors::exception("InvalidRequestError", error, &[]))
}

/// The device, by a number or a name, and how many bytes of its memory.
fn device(settings: &Bound<'_, PyDict>) -> PyResult<Option<(DeviceChoice, usize)>> {
    let asked: Option<(String, usize)> = setting(settings, "device")?;
    Ok(asked.map(|(name, bytes)| {
        let Ok(choice) = name.parse::<DeviceChoice>();
        (choice, bytes)
    }))
}

#[pymethods]
impl Offloader {
    /// Opens one with those settings; what its folder holds of an earlier one is removed.
    #[new]
    fn new(settings: &Bound<'_, PyDict>) -> PyResult<Self> {
        let defaults = OffloaderSettings::default();
        let disk: Option<(PathBuf, usize)> = setting(settings, "disk")?;
        let heeded: Option<f64> = setting(settings, "system_threshold")?;
        let chosen = setting::<String>(settings, "policy")?.map(|name| policy(&name)).transpose()?;
        let settings = OffloaderSettings {
            memory: setting(settings, "memory")?.unwrap_or(defaults.memory),
            threshold: setting(settings, "threshold")?.unwrap_or(defaults.threshold),
            items: setting(settings, "items")?,
            device: device(settings)?,
            disk,
            policy: chosen.unwrap_or(defaults.policy),
            residency: match setting(settings, "locked")? {
                Some(true) => Residency::Locked,
                _ => Residency::Pageable,
            },
            threads: defaults.threads,
            recorder: None,
        };
        let opened = memory::Offloader::open(&settings);
        let offloader = opened.map_err(|error| errors::exception("OffloadFailedError", error, &[]))?;
        let watch = heeded.and_then(Watermarks::above).map(|marks| heed(&offloader, marks)).transpose();
        let _watch = watch.map_err(|error| errors::exception("OffloadFailedError", error, &[]))?;
        Ok(Self { _watch, offloader })
    }

    /// Puts a copy of a tensor, given as a DLPack capsule, away under a name; answers its bytes.
    fn offload(&self, name: String, tensor: &Bound<'_, PyAny>) -> PyResult<Awaitable> {
        let (offloader, lent) = (self.offloader.clone(), Lent::take(tensor)?);
        Ok(Awaitable::new(async move {
            let length = lent.as_ref().len();
            let mut staging = offloader.staging(&name, length).await.map_err(failed)?;
            if length <= AT_ONCE {
                staging.copy_from_slice(lent.as_ref());
            } else {
                let copied = runtime::handle()?.spawn_blocking(move || {
                    staging.copy_from_slice(lent.as_ref());
                    staging
                });
                staging =
                    copied.await.map_err(|error| errors::exception("OffloadFailedError", error, &[]))?;
            }
            offloader.offload_staged(&name, staging);
            Ok(length)
        }))
    }

    /// A copy of the bytes under a name: a `bytearray` of a few, and of many the memory in which they are.
    fn load(&self, name: String) -> Awaitable {
        let offloader = self.offloader.clone();
        Awaitable::new(async move {
            let loaded = offloader.load(&name).await.map_err(failed)?;
            if loaded.len() <= AT_ONCE {
                return Python::attach(|py| Ok(PyByteArray::new(py, &loaded).into_any().unbind()));
            }
            let copied =
                runtime::handle()?.spawn_blocking(move || LoadedMemory::copy(&offloader, &loaded)).await;
            let memory = copied.map_err(|error| errors::exception("OffloadFailedError", error, &[]))?;
            Python::attach(|py| Ok(Py::new(py, memory)?.into_any()))
        })
    }

    /// The memory in which the bytes under a name are, not to be written to; they stay there while it is held.
    fn view(&self, name: String) -> Awaitable {
        let offloader = self.offloader.clone();
        Awaitable::new(async move {
            let loaded = offloader.load(&name).await.map_err(failed)?;
            Ok(LoadedMemory::shared(loaded))
        })
    }

    /// Brings what is under these names up, as far as there is room; answers how many are there or on their way.
    fn prefetch(&self, names: Vec<String>) -> usize {
        self.offloader.prefetch(names.iter().map(String::as_str))
    }

    /// Removes what is under a name.
    fn remove(&self, name: &str) -> bool {
        self.offloader.remove(name)
    }

    /// What it holds and has done, as JSON.
    fn stats(&self) -> String {
        let stats = self.offloader.stats();
        let levels = self.offloader.levels();
        let at = |medium| levels.iter().find(|level| level.medium == medium);
        let (device, disk) = (at(Medium::Device), at(Medium::Disk));
        json!({
            "memory_used": stats.host_used,
            "memory_budget": stats.host_budget,
            "memory_items": stats.host_objects,
            "memory_locked": stats.host_locked,
            "device": device.map(|level| &level.place),
            "device_used": device.map_or(0, |level| level.used),
            "device_items": device.map_or(0, |level| level.objects),
            "device_bytes_written": device.map_or(0, |level| level.written),
            "device_bytes_read": device.map_or(0, |level| level.read),
            "disk_used": disk.map_or(0, |level| level.used),
            "disk_items": disk.map_or(0, |level| level.objects),
            "hits": stats.hits,
            "read_from_disk": stats.raises,
            "written_to_disk": stats.lowered,
            "prefetched": stats.prefetched,
            "bytes_written": stats.bytes_down,
            "bytes_read": stats.bytes_up,
        })
        .to_string()
    }
}
