//! Tensors of other libraries as bytes, without a copy: the DLPack protocol in its first form, which every library speaks
//! (<https://dmlc.github.io/dlpack/latest/c_api.html>).

use std::ffi::{CStr, c_void};
use std::ptr::NonNull;
use std::slice;

use pyo3::exceptions::{PyBufferError, PyTypeError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyCapsule;
use tidegate::in_memory::Dtype;

/// What a capsule is called until somebody takes its tensor, and from then on.
const OFFERED: &CStr = c"dltensor";
const TAKEN: &CStr = c"used_dltensor";

/// Kinds of devices whose memory the processor reads: its own, and what CUDA and ROCm have locked of it.
const READABLE: [i32; 3] = [1, 3, 11];

/// `DLDevice`.
#[repr(C)]
struct Device {
    kind: i32,
    number: i32,
}

/// `DLDataType`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Element {
    code: u8,
    bits: u8,
    lanes: u16,
}

/// `DLTensor`.
#[repr(C)]
struct Described {
    data: *mut c_void,
    device: Device,
    dimensions: i32,
    element: Element,
    shape: *mut i64,
    /// In elements; null where the tensor is row-major without gaps.
    strides: *mut i64,
    byte_offset: u64,
}

/// `DLManagedTensor`.
#[repr(C)]
struct Managed {
    tensor: Described,
    context: *mut c_void,
    deleter: Option<unsafe extern "C" fn(*mut Managed)>,
}

/// A tensor that another library has lent: row-major without gaps, in memory that the processor reads. It is given back
/// when this is dropped. Whoever writes to it meanwhile changes what is read here.
pub(crate) struct Lent {
    managed: NonNull<Managed>,
    shape: Vec<usize>,
    bytes: usize,
}

// SAFETY: only the bytes are read through it, and the protocol lets any thread call the deleter.
unsafe impl Send for Lent {}
// SAFETY: shared access reads only.
unsafe impl Sync for Lent {}

impl Lent {
    /// Takes the tensor of a capsule, which can be done once.
    ///
    /// # Errors
    /// When it is no capsule with a tensor, or the tensor is not as this type says.
    pub(crate) fn take(capsule: &Bound<'_, PyAny>) -> PyResult<Self> {
        let capsule =
            capsule.cast::<PyCapsule>().map_err(|_| PyTypeError::new_err("expected a DLPack capsule"))?;
        // SAFETY: the interpreter is held; the pointer is null with an exception set unless the capsule has that name, under
        // which it holds what the protocol says.
        let pointer = unsafe { ffi::PyCapsule_GetPointer(capsule.as_ptr(), OFFERED.as_ptr()) };
        let managed = NonNull::new(pointer.cast::<Managed>()).ok_or_else(|| PyErr::fetch(capsule.py()))?;
        // SAFETY: as above; the name is static. From here on the tensor is ours, and the capsule does not give it back.
        let named = unsafe { ffi::PyCapsule_SetName(capsule.as_ptr(), TAKEN.as_ptr()) };
        if named != 0 {
            return Err(PyErr::fetch(capsule.py()));
        }
        let mut lent = Self { managed, shape: Vec::new(), bytes: 0 };
        (lent.shape, lent.bytes) = lent.measure()?;
        Ok(lent)
    }

    fn described(&self) -> &Described {
        // SAFETY: it was valid when it was taken, and stays until the deleter is called.
        &unsafe { self.managed.as_ref() }.tensor
    }

    /// Shape and length in bytes, checked.
    fn measure(&self) -> PyResult<(Vec<usize>, usize)> {
        let tensor = self.described();
        if !READABLE.contains(&tensor.device.kind) {
            let found = tensor.device.kind;
            return Err(PyBufferError::new_err(format!(
                "the tensor is on a device of kind {found}; copy it to the host"
            )));
        }
        let count = usize::try_from(tensor.dimensions).unwrap_or(0);
        let extents: &[i64] = match count {
            0 => &[],
            // SAFETY: the protocol has `shape` point to one number for each dimension.
            count => unsafe { slice::from_raw_parts(tensor.shape, count) },
        };
        let shape: Result<Vec<usize>, _> = extents.iter().map(|&extent| usize::try_from(extent)).collect();
        let shape = shape.map_err(|_| PyBufferError::new_err("the tensor has a negative extent"))?;
        if count > 0 && !tensor.strides.is_null() {
            // SAFETY: where there are strides, there is one for each dimension.
            let strides = unsafe { slice::from_raw_parts(tensor.strides, count) };
            require_dense(&shape, strides)?;
        }
        let bits = usize::from(tensor.element.bits) * usize::from(tensor.element.lanes);
        let elements = shape.iter().try_fold(1_usize, |all, &extent| all.checked_mul(extent));
        let bytes = elements.and_then(|elements| elements.checked_mul(bits)).map(|bits| bits.div_ceil(8));
        let bytes = bytes.filter(|&bytes| isize::try_from(bytes).is_ok());
        Ok((shape, bytes.ok_or_else(|| PyBufferError::new_err("the tensor is larger than memory can be"))?))
    }

    /// Extents, outermost first.
    pub(crate) fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The element type, where it is one that weights have.
    pub(crate) fn dtype(&self) -> Option<Dtype> {
        let Element { code, bits, lanes } = self.described().element;
        match (code, bits, lanes) {
            (2, 32, 1) => Some(Dtype::F32),
            (2, 16, 1) => Some(Dtype::F16),
            (4, 16, 1) => Some(Dtype::Bf16),
            _ => None,
        }
    }
}

/// Refuses strides that are not those of a row-major tensor without gaps; those of extents of one mean nothing.
fn require_dense(shape: &[usize], strides: &[i64]) -> PyResult<()> {
    let mut next = 1_usize;
    for (&extent, &stride) in shape.iter().zip(strides).rev() {
        if extent > 1 && usize::try_from(stride) != Ok(next) {
            return Err(PyBufferError::new_err("the tensor has gaps; give a contiguous one"));
        }
        next = next.saturating_mul(extent);
    }
    Ok(())
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        let tensor = self.described();
        if self.bytes == 0 || tensor.data.is_null() {
            return &[];
        }
        // SAFETY: the lender keeps that many bytes from there on until the deleter is called. Whoever writes to them
        // changes plain numbers, of which every pattern is valid.
        unsafe {
            slice::from_raw_parts(tensor.data.cast::<u8>().add(tensor.byte_offset as usize), self.bytes)
        }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        // SAFETY: it is called once, by the only owner, with what the lender gave.
        unsafe {
            if let Some(deleter) = self.managed.as_ref().deleter {
                deleter(self.managed.as_ptr());
            }
        }
    }
}
