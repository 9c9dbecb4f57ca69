//! The few functions of OpenCL that memory of a device needs, from the system's loader, which is opened when somebody asks.
//!
//! Nothing here decides anything. The loader (`libOpenCL.so.1`) finds the drivers of all vendors; it is not linked, so the
//! program starts where there is none.

use std::ffi::{CStr, c_char, c_void};
use std::ptr::{null, null_mut};
use std::sync::OnceLock;

/// What the loader is called.
const LIBRARY: &CStr = if cfg!(target_os = "macos") {
    c"/System/Library/Frameworks/OpenCL.framework/OpenCL"
} else {
    c"libOpenCL.so.1"
};

/// What a call came to: 0, or one of the codes below, or another.
pub(super) type Code = i32;

pub(super) const DEVICE_NOT_FOUND: Code = -1;
pub(super) const DEVICE_NOT_AVAILABLE: Code = -2;
pub(super) const MEM_OBJECT_ALLOCATION_FAILURE: Code = -4;
pub(super) const OUT_OF_RESOURCES: Code = -5;
pub(super) const OUT_OF_HOST_MEMORY: Code = -6;
pub(super) const INVALID_DEVICE: Code = -33;
pub(super) const INVALID_CONTEXT: Code = -34;
pub(super) const INVALID_COMMAND_QUEUE: Code = -36;
pub(super) const INVALID_MEM_OBJECT: Code = -38;
pub(super) const INVALID_BUFFER_SIZE: Code = -61;
pub(super) const PLATFORM_NOT_FOUND: Code = -1001;

/// What is asked of a platform or a device.
pub(super) const PLATFORM_NAME: u32 = 0x0902;
pub(super) const DEVICE_TYPE: u32 = 0x1000;
pub(super) const DEVICE_GLOBAL_MEM_SIZE: u32 = 0x101F;
pub(super) const DEVICE_NAME: u32 = 0x102B;

/// Bits of the type of a device.
pub(super) const TYPE_CPU: u64 = 1 << 1;
pub(super) const TYPE_GPU: u64 = 1 << 2;
pub(super) const TYPE_ACCELERATOR: u64 = 1 << 3;
const TYPE_ALL: u64 = 0xFFFF_FFFF;

const MEM_READ_WRITE: u64 = 1;
const BLOCKING: u32 = 1;

type Raw = *mut c_void;
type Ids = unsafe extern "C" fn(u32, *mut Raw, *mut u32) -> Code;
type DeviceIds = unsafe extern "C" fn(Raw, u64, u32, *mut Raw, *mut u32) -> Code;
type Info = unsafe extern "C" fn(Raw, u32, usize, Raw, *mut usize) -> Code;
type Notify = Option<unsafe extern "C" fn(*const c_char, *const c_void, usize, Raw)>;
type CreateContext = unsafe extern "C" fn(*const isize, u32, *const Raw, Notify, Raw, *mut Code) -> Raw;
type CreateQueue = unsafe extern "C" fn(Raw, Raw, u64, *mut Code) -> Raw;
type CreateBuffer = unsafe extern "C" fn(Raw, u64, usize, Raw, *mut Code) -> Raw;
type Release = unsafe extern "C" fn(Raw) -> Code;
type Write =
    unsafe extern "C" fn(Raw, Raw, u32, usize, usize, *const c_void, u32, *const Raw, *mut Raw) -> Code;
type Read = unsafe extern "C" fn(Raw, Raw, u32, usize, usize, Raw, u32, *const Raw, *mut Raw) -> Code;

/// The functions, with the types that the specification gives them.
struct Functions {
    platforms: Ids,
    platform_info: Info,
    devices: DeviceIds,
    device_info: Info,
    create_context: CreateContext,
    release_context: Release,
    create_queue: CreateQueue,
    release_queue: Release,
    create_buffer: CreateBuffer,
    release_buffer: Release,
    write: Write,
    read: Read,
}

/// The library, or why there is none. Drivers do not like to be unloaded, so it stays.
static FUNCTIONS: OnceLock<Result<Functions, String>> = OnceLock::new();

fn functions() -> Result<&'static Functions, String> {
    FUNCTIONS.get_or_init(Functions::load).as_ref().map_err(Clone::clone)
}

/// What the system's loader of libraries said last.
fn refusal() -> String {
    // SAFETY: the answer is null or a text that is there until the next call on this thread.
    let text = unsafe { libc::dlerror() };
    if text.is_null() {
        return "no reason is given".to_owned();
    }
    // SAFETY: not null, so it is such a text.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// A function of the library.
///
/// # Safety
/// `F` is the type of a pointer to the function of that name.
unsafe fn symbol<F: Copy>(library: Raw, name: &CStr) -> Result<F, String> {
    // SAFETY: the library is open.
    let address = unsafe { libc::dlsym(library, name.as_ptr()) };
    if address.is_null() {
        return Err(refusal());
    }
    // SAFETY: an address of a function of that type, says the caller; both are one pointer.
    Ok(unsafe { std::mem::transmute_copy::<Raw, F>(&address) })
}

impl Functions {
    fn load() -> Result<Self, String> {
        // SAFETY: opening the loader runs its initialisers, which is what it is installed for.
        let library = unsafe { libc::dlopen(LIBRARY.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        if library.is_null() {
            return Err(refusal());
        }
        // SAFETY: the types are those of the specification, OpenCL 1.2 and later.
        unsafe {
            Ok(Self {
                platforms: symbol(library, c"clGetPlatformIDs")?,
                platform_info: symbol(library, c"clGetPlatformInfo")?,
                devices: symbol(library, c"clGetDeviceIDs")?,
                device_info: symbol(library, c"clGetDeviceInfo")?,
                create_context: symbol(library, c"clCreateContext")?,
                release_context: symbol(library, c"clReleaseContext")?,
                create_queue: symbol(library, c"clCreateCommandQueue")?,
                release_queue: symbol(library, c"clReleaseCommandQueue")?,
                create_buffer: symbol(library, c"clCreateBuffer")?,
                release_buffer: symbol(library, c"clReleaseMemObject")?,
                write: symbol(library, c"clEnqueueWriteBuffer")?,
                read: symbol(library, c"clEnqueueReadBuffer")?,
            })
        }
    }
}

fn done(code: Code) -> Result<(), Code> {
    if code == 0 { Ok(()) } else { Err(code) }
}

/// The numbers of something, in two calls: how many there are, then which.
fn ids(ask: impl Fn(u32, *mut Raw, *mut u32) -> Code) -> Result<Vec<Raw>, Code> {
    let mut count = 0;
    done(ask(0, null_mut(), &raw mut count))?;
    let mut ids = vec![null_mut(); count as usize];
    done(ask(count, ids.as_mut_ptr(), null_mut()))?;
    Ok(ids)
}

/// What a platform or a device says of itself, in two calls: how long that is, then what.
fn info(ask: impl Fn(usize, Raw, *mut usize) -> Code) -> Result<Vec<u8>, Code> {
    let mut length = 0;
    done(ask(0, null_mut(), &raw mut length))?;
    let mut bytes = vec![0; length];
    done(ask(length, bytes.as_mut_ptr().cast(), null_mut()))?;
    Ok(bytes)
}

/// The driver of some devices.
#[derive(Clone, Copy)]
pub(super) struct Platform {
    functions: &'static Functions,
    id: Raw,
}

impl Platform {
    /// All drivers of the system, or why OpenCL is not there.
    pub(super) fn all() -> Result<Result<Vec<Self>, Code>, String> {
        let functions = functions()?;
        // SAFETY: `ids` has room for as many as it says, or none and asks for their number.
        let found = ids(|count, ids, number| unsafe { (functions.platforms)(count, ids, number) });
        Ok(found.map(|ids| ids.into_iter().map(|id| Self { functions, id }).collect()))
    }

    /// What it says of itself.
    pub(super) fn info(self, what: u32) -> Result<Vec<u8>, Code> {
        // SAFETY: the driver is there as long as the process; `into` has as many bytes as it says, or none.
        info(|length, into, said| unsafe {
            (self.functions.platform_info)(self.id, what, length, into, said)
        })
    }

    /// Its devices.
    pub(super) fn devices(self) -> Result<Vec<DeviceId>, Code> {
        // SAFETY: as in `all`.
        let found = ids(|count, ids, number| unsafe {
            (self.functions.devices)(self.id, TYPE_ALL, count, ids, number)
        });
        found.map(|ids| ids.into_iter().map(|id| DeviceId { functions: self.functions, id }).collect())
    }
}

/// A device.
#[derive(Clone, Copy)]
pub(super) struct DeviceId {
    functions: &'static Functions,
    id: Raw,
}

impl PartialEq for DeviceId {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

// SAFETY: devices are shared by all threads of a process, says the specification; so are contexts, queues and buffers, whose
// functions are safe to call from several threads at once.
unsafe impl Send for DeviceId {}
// SAFETY: as above.
unsafe impl Sync for DeviceId {}

impl DeviceId {
    /// What it says of itself.
    pub(super) fn info(self, what: u32) -> Result<Vec<u8>, Code> {
        // SAFETY: the device is there as long as the process; `into` has as many bytes as it says, or none.
        info(|length, into, said| unsafe { (self.functions.device_info)(self.id, what, length, into, said) })
    }

    /// A context of this device alone.
    pub(super) fn context(self) -> Result<Owned, Code> {
        let mut code = 0;
        let properties = null();
        // SAFETY: one device is said and one given; no properties and no callback are allowed.
        let context = unsafe {
            (self.functions.create_context)(
                properties,
                1,
                &raw const self.id,
                None,
                null_mut(),
                &raw mut code,
            )
        };
        done(code).map(|()| Owned { raw: context, release: self.functions.release_context })
    }

    /// A queue of transfers, in order.
    pub(super) fn queue(self, context: &Owned) -> Result<Owned, Code> {
        let mut code = 0;
        // SAFETY: the context is alive and of this device.
        let queue = unsafe { (self.functions.create_queue)(context.raw, self.id, 0, &raw mut code) };
        done(code).map(|()| Owned { raw: queue, release: self.functions.release_queue })
    }

    /// Memory of the device.
    pub(super) fn buffer(self, context: &Owned, bytes: usize) -> Result<Owned, Code> {
        let mut code = 0;
        // SAFETY: the context is alive; without a pointer of the host the driver finds the memory itself.
        let buffer = unsafe {
            (self.functions.create_buffer)(context.raw, MEM_READ_WRITE, bytes, null_mut(), &raw mut code)
        };
        done(code).map(|()| Owned { raw: buffer, release: self.functions.release_buffer })
    }

    /// Copies bytes to a buffer, and returns when that is done. What would go beyond its end is refused by the driver.
    pub(super) fn write(
        self,
        queue: &Owned,
        (buffer, offset): (&Owned, usize),
        bytes: &[u8],
    ) -> Result<(), Code> {
        let (length, from) = (bytes.len(), bytes.as_ptr().cast());
        // SAFETY: queue and buffer are alive, and the bytes are borrowed until the call is over, which blocks.
        done(unsafe {
            let write = self.functions.write;
            write(queue.raw, buffer.raw, BLOCKING, offset, length, from, 0, null(), null_mut())
        })
    }

    /// Copies bytes from a buffer, and returns when that is done. What would go beyond its end is refused by the driver.
    pub(super) fn read(
        self,
        queue: &Owned,
        (buffer, offset): (&Owned, usize),
        into: &mut [u8],
    ) -> Result<(), Code> {
        let (length, to) = (into.len(), into.as_mut_ptr().cast());
        // SAFETY: queue and buffer are alive, and the bytes are borrowed alone until the call is over, which blocks.
        done(unsafe {
            let read = self.functions.read;
            read(queue.raw, buffer.raw, BLOCKING, offset, length, to, 0, null(), null_mut())
        })
    }
}

/// A context, a queue or a buffer, released when it is dropped.
pub(super) struct Owned {
    raw: Raw,
    release: Release,
}

// SAFETY: as for devices.
unsafe impl Send for Owned {}
// SAFETY: as for devices.
unsafe impl Sync for Owned {}

impl Drop for Owned {
    fn drop(&mut self) {
        // SAFETY: made by the function that belongs to this one, and released once.
        unsafe { (self.release)(self.raw) };
    }
}
