//! Asks NVIDIA's driver, through its own library, for its version and its devices.
//!
//! Functions and codes: *CUDA Driver API*, `cuda.h`. The names with `_v2` are those that the header
//! maps the plain names to.
#![expect(unsafe_code, reason = "calls of C functions that are found at run time")]

use std::ffi::{CStr, c_char, c_int};
use std::mem::ManuallyDrop;

use libloading::{Library, Symbol};

use crate::engine::cuda::errors::unavailable;
use crate::error::{Error, Result};

/// `CUresult`: 0 is success.
type Status = c_int;

/// CUDA_ERROR_NO_DEVICE.
const NO_DEVICE: Status = 100;

/// Bytes for a device's name, its final NUL with it.
const NAME_BYTES: usize = 256;

/// A device as the driver knows it. Its position in the list is its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DriverDevice {
    pub(crate) name: String,
    pub(crate) total_bytes: u64,
}

/// The driver, initialised.
pub(crate) struct Driver {
    /// Never closed: the driver has threads of its own once it was started.
    library: ManuallyDrop<Library>,
    ready: Status,
}

impl Driver {
    /// Opens the driver's library and starts the driver.
    pub(crate) fn open() -> Result<Driver> {
        // SAFETY: the library's initialisers are those of NVIDIA's driver, made to be loaded so.
        let library = unsafe { Library::new("libcuda.so.1") }.map_err(|error| {
            unavailable("NVIDIA's driver is missing (libcuda.so.1 can't be opened)")
                .with_hint("on a machine with an NVIDIA GPU install its driver, else --device cpu")
                .caused_by(error)
        })?;
        let mut driver = Driver { library: ManuallyDrop::new(library), ready: 0 };
        driver.ready = driver.call(b"cuInit\0", |init: &extern "C" fn(u32) -> Status| init(0))?;
        Ok(driver)
    }

    /// Largest CUDA version that the driver serves.
    pub(crate) fn version(&self) -> Option<i32> {
        let mut version: c_int = 0;
        let status = self
            .call(b"cuDriverGetVersion\0", |get: &extern "C" fn(*mut c_int) -> Status| {
                get(&raw mut version)
            })
            .ok()?;
        (status == 0 && version > 0).then_some(version)
    }

    /// The devices that CUDA_VISIBLE_DEVICES leaves.
    pub(crate) fn devices(&self) -> Result<Vec<DriverDevice>> {
        self.check(self.ready)?;
        let mut count: c_int = 0;
        let status = self
            .call(b"cuDeviceGetCount\0", |get: &extern "C" fn(*mut c_int) -> Status| {
                get(&raw mut count)
            })?;
        self.check(status)?;
        if count < 1 {
            return Err(no_device());
        }
        (0..count).map(|index| self.device(index)).collect()
    }

    fn device(&self, index: c_int) -> Result<DriverDevice> {
        let mut device: c_int = 0;
        let status = self
            .call(b"cuDeviceGet\0", |get: &extern "C" fn(*mut c_int, c_int) -> Status| {
                get(&raw mut device, index)
            })?;
        self.check(status)?;
        let mut name = [0; NAME_BYTES];
        let length = c_int::try_from(NAME_BYTES - 1).unwrap_or(0);
        let status = self.call(
            b"cuDeviceGetName\0",
            |get: &extern "C" fn(*mut c_char, c_int, c_int) -> Status| {
                get(name.as_mut_ptr().cast(), length, device)
            },
        )?;
        self.check(status)?;
        let mut total: usize = 0;
        let status = self.call(
            b"cuDeviceTotalMem_v2\0",
            |get: &extern "C" fn(*mut usize, c_int) -> Status| get(&raw mut total, device),
        )?;
        self.check(status)?;
        let name = CStr::from_bytes_until_nul(&name).unwrap_or_default();
        Ok(DriverDevice {
            name: name.to_string_lossy().into_owned(),
            total_bytes: u64::try_from(total).unwrap_or(u64::MAX),
        })
    }

    /// Calls a function of the driver. `F` must be its type in `cuda.h`.
    fn call<F>(&self, name: &[u8], call: impl FnOnce(&F) -> Status) -> Result<Status> {
        // SAFETY: `F` is written beside every name above, as cuda.h declares it; the functions fill
        // what their pointers point to, which outlives the call.
        let function: Symbol<'_, F> = unsafe { self.library.get(name) }
            .map_err(|error| unavailable("libcuda.so.1 is not NVIDIA's driver").caused_by(error))?;
        Ok(call(&function))
    }

    fn check(&self, status: Status) -> Result<()> {
        match status {
            0 => Ok(()),
            NO_DEVICE => Err(no_device()),
            status => Err(unavailable(format!("NVIDIA's driver does not start, error {status}"))
                .with_hint(
                    "see whether `nvidia-smi` works; after an update of the driver, reboot",
                )),
        }
    }
}

fn no_device() -> Error {
    let hidden = std::env::var("CUDA_VISIBLE_DEVICES")
        .map(|value| format!(" (CUDA_VISIBLE_DEVICES is `{value}`)"))
        .unwrap_or_default();
    unavailable(format!("there is no GPU that the driver can use{hidden}"))
}
