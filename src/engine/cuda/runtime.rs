//! Opens `libtorch_cuda.so` and the CUDA runtime that it brings, and calls their functions.
//!
//! Sources: *CUDA Runtime API* (`cuda_runtime_api.h`) for the functions named `cuda…`, and PyTorch
//! 2.11's `torch/csrc/inductor/aoti_torch/c/shim.h`, its stable C interface, for `aoti_torch_…`.
#![expect(unsafe_code, reason = "calls of C functions that are found at run time")]

use std::error::Error as _;
use std::ffi::{c_int, c_uint, c_void};
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use libloading::os::unix::{Library as UnixLibrary, RTLD_GLOBAL, RTLD_NOW};

use crate::engine::cuda::errors::unavailable;
use crate::error::{Error, Kind, Result};

type GetVersion = unsafe extern "C" fn(*mut c_int) -> c_int;
type SetDevice = unsafe extern "C" fn(c_int) -> c_int;
type MemGetInfo = unsafe extern "C" fn(*mut usize, *mut usize) -> c_int;
type StreamCreate = unsafe extern "C" fn(*mut *mut c_void, c_uint) -> c_int;
type CreateGuard = unsafe extern "C" fn(*mut c_void, i32, *mut *mut c_void) -> i32;
type DeleteGuard = unsafe extern "C" fn(*mut c_void) -> i32;

/// cudaStreamNonBlocking: the stream does not wait for the default stream.
const NON_BLOCKING: c_uint = 1;

/// `libtorch_cuda.so`, opened so that torch finds its CUDA half. Never closed: torch keeps pointers
/// into it.
pub(crate) struct Library {
    library: ManuallyDrop<UnixLibrary>,
    path: PathBuf,
}

impl Library {
    /// Opens it. This must come before torch is asked anything about CUDA: it remembers that there
    /// was none.
    pub(crate) fn open(path: &Path) -> Result<Library> {
        // SAFETY: the library was found to be the other half of the loaded libtorch; its
        // initialisers register CUDA with torch, as they do in every PyTorch process.
        let library = unsafe { UnixLibrary::open(Some(path), RTLD_NOW | RTLD_GLOBAL) };
        let library = library.map_err(|error| {
            // The loader's own words name the library that is missing.
            let why = error.source().map_or_else(|| error.to_string(), ToString::to_string);
            unavailable("libtorch_cuda.so can't be opened").file(path).expected("", why).with_hint(
                "what it needs is missing beside it: install that PyTorch anew, with CUDA",
            )
        })?;
        Ok(Library { library: ManuallyDrop::new(library), path: path.to_path_buf() })
    }
}

/// CUDA as torch uses it, for as long as the process lives.
pub(crate) struct Runtime {
    /// `libtorch_cuda.so`.
    pub(crate) library: PathBuf,
    get_version: GetVersion,
    set_device: SetDevice,
    mem_get_info: MemGetInfo,
    stream_create: StreamCreate,
    create_guard: CreateGuard,
    delete_guard: DeleteGuard,
    /// Streams that no worker uses now, by device. They are never destroyed, for torch's allocator
    /// keeps the memory that was used on a stream for that stream.
    streams: Mutex<Vec<(i32, Stream)>>,
}

/// A `cudaStream_t`.
#[derive(Clone, Copy)]
struct Stream(*mut c_void);

// SAFETY: CUDA's streams may be used from any thread (CUDA C++ Programming Guide, "Streams"); the
// handle is not read through.
unsafe impl Send for Stream {}

impl Runtime {
    /// The functions of an opened library.
    pub(crate) fn new(Library { library, path }: Library) -> Result<Runtime> {
        Ok(Runtime {
            get_version: function(&library, b"cudaRuntimeGetVersion\0")?,
            set_device: function(&library, b"cudaSetDevice\0")?,
            mem_get_info: function(&library, b"cudaMemGetInfo\0")?,
            stream_create: function(&library, b"cudaStreamCreateWithFlags\0")?,
            create_guard: function(&library, b"aoti_torch_create_cuda_stream_guard\0")?,
            delete_guard: function(&library, b"aoti_torch_delete_cuda_stream_guard\0")?,
            streams: Mutex::new(Vec::new()),
            library: path,
        })
    }

    /// Version of the CUDA runtime, as 1000·major + 10·minor.
    pub(crate) fn version(&self) -> Option<i32> {
        let mut version = 0;
        // SAFETY: the function writes one int.
        let status = unsafe { (self.get_version)(&raw mut version) };
        (status == 0 && version > 0).then_some(version)
    }

    /// Free and total bytes of a device. Starts CUDA on it, which takes some of its memory.
    pub(crate) fn memory(&self, index: usize) -> Result<(u64, u64)> {
        let number = number(index)?;
        let (mut free, mut total) = (0usize, 0usize);
        // SAFETY: plain numbers in, two size_t out; the device is this thread's only till the next
        // call that sets one.
        let status = unsafe {
            match (self.set_device)(number) {
                0 => (self.mem_get_info)(&raw mut free, &raw mut total),
                failed => failed,
            }
        };
        if status != 0 {
            return Err(unavailable(format!("cuda:{index} does not start, error {status}"))
                .with_hint("see whether `nvidia-smi` works, and who else uses that GPU"));
        }
        let bytes = |size| u64::try_from(size).unwrap_or(u64::MAX);
        Ok((bytes(free), bytes(total)))
    }

    /// Lets torch's work of this thread run on a stream of its own, until the guard is dropped.
    ///
    /// Without one all threads of a device share the default stream, where copies up, kernels and
    /// copies down wait for each other.
    pub(crate) fn own_stream(&'static self, index: usize) -> Result<StreamGuard> {
        let number = number(index)?;
        let stream = self.stream(number)?;
        let mut guard = std::ptr::null_mut();
        // SAFETY: the stream is one of that device that lives as long as the process; the function
        // gives a new guard, which is deleted once, in this thread (StreamGuard is not Send).
        let status = unsafe { (self.create_guard)(stream.0, number, &raw mut guard) };
        if status != 0 || guard.is_null() {
            return Err(failed("use a stream", status));
        }
        Ok(StreamGuard { runtime: self, guard, number, stream })
    }

    /// A stream that nobody uses, made with the device as the thread's own.
    fn stream(&self, number: i32) -> Result<Stream> {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(position) = streams.iter().position(|(device, _)| *device == number) {
            return Ok(streams.swap_remove(position).1);
        }
        let mut stream = std::ptr::null_mut();
        // SAFETY: plain numbers in, one handle out.
        let status = unsafe {
            match (self.set_device)(number) {
                0 => (self.stream_create)(&raw mut stream, NON_BLOCKING),
                failed => failed,
            }
        };
        if status == 0 { Ok(Stream(stream)) } else { Err(failed("make a stream", status)) }
    }
}

/// A function of the library or of what it is linked with. `F` must be its type.
fn function<F: Copy>(library: &UnixLibrary, name: &[u8]) -> Result<F> {
    // SAFETY: every `F` above is the type of a function pointer as the named header declares it; the
    // library is never closed, so the pointer stays good.
    let symbol = unsafe { library.get::<F>(name) }.map_err(|error| {
        unavailable("libtorch_cuda.so lacks a function").expected("", error.to_string())
    })?;
    Ok(*symbol)
}

/// While it lives, torch's work of its thread runs on its stream.
pub(crate) struct StreamGuard {
    runtime: &'static Runtime,
    guard: *mut c_void,
    number: i32,
    stream: Stream,
}

impl Drop for StreamGuard {
    fn drop(&mut self) {
        // SAFETY: the guard came from its counterpart, in this thread, and is deleted only here.
        let status = unsafe { (self.runtime.delete_guard)(self.guard) };
        if status == 0 {
            let mut streams = self.runtime.streams.lock().unwrap_or_else(PoisonError::into_inner);
            streams.push((self.number, self.stream));
        }
    }
}

fn number(index: usize) -> Result<i32> {
    i32::try_from(index).map_err(|_| unavailable(format!("there is no cuda:{index}")))
}

fn failed(what: &str, status: i32) -> Error {
    Error::new(Kind::Resource, format!("CUDA could not {what}"))
        .expected("", format!("error {status}"))
}
