//! Opens CUDA, or says in one sentence what is missing.
//!
//! Looks in this order, so that the sentence names the first thing to mend: NVIDIA's driver, a
//! device, the CUDA half of the libtorch that is loaded, and a driver that is new enough for it.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::engine::cuda::driver::{Driver, DriverDevice};
use crate::engine::cuda::errors::unavailable;
use crate::engine::cuda::library::{self, Loaded, Search};
use crate::engine::cuda::runtime::{Library, Runtime};
use crate::error::{Error, Kind, Result};
use crate::tensor::counted;

/// What is on this machine, whether it is enough or not.
#[derive(Debug)]
pub(crate) struct Sight {
    /// The libtorch that is loaded.
    pub(crate) libtorch: Option<Loaded>,
    /// Every `libtorch_cuda.so` that may do, or why none can be used.
    pub(crate) libraries: std::result::Result<Vec<PathBuf>, Error>,
    /// Largest CUDA version that the driver serves, as 1000·major + 10·minor.
    pub(crate) driver_version: Option<i32>,
    /// The driver's devices, or why there are none.
    pub(crate) devices: std::result::Result<Vec<DriverDevice>, Error>,
}

/// Looks at everything; loads the driver's library and no other.
pub(crate) fn look() -> Sight {
    let libtorch = library::loaded();
    let libraries = match &libtorch {
        Some(loaded) => library::search(&Search::of_environment(loaded)),
        None => Err(unavailable("libtorch_cpu.so is not among this program's libraries")),
    };
    let (driver_version, devices) = match Driver::open() {
        Ok(driver) => (driver.version(), driver.devices()),
        Err(error) => (None, Err(error)),
    };
    Sight { libtorch, libraries, driver_version, devices }
}

/// CUDA, opened once in a process; the driver's devices with it.
///
/// # Errors
/// [`Kind::Device`], in one sentence, where something is missing.
pub(crate) fn open() -> Result<(&'static Runtime, Vec<DriverDevice>)> {
    static RUNTIME: OnceLock<std::result::Result<(Runtime, Vec<DriverDevice>), String>> =
        OnceLock::new();
    let mut first = None;
    let opened = RUNTIME.get_or_init(|| {
        open_first().map_err(|error| {
            let text = error.to_string();
            first = Some(error);
            text
        })
    });
    match (opened, first) {
        (Ok((runtime, devices)), _) => Ok((runtime, devices.clone())),
        (Err(_), Some(error)) => Err(error),
        (Err(text), None) => Err(Error::new(Kind::Device, text.clone())),
    }
}

fn open_first() -> Result<(Runtime, Vec<DriverDevice>)> {
    let sight = look();
    let devices = sight.devices?;
    let library = first_that_opens(&sight.libraries?, Library::open)?;
    let runtime = Runtime::new(library)?;
    check_driver(sight.driver_version, runtime.version())?;
    let seen = tch::Cuda::device_count();
    if seen < 1 {
        return Err(unavailable("torch sees no GPU, though the driver does")
            .expected(counted(devices.len() as u64, "device"), seen.to_string())
            .with_hint("see whether `nvidia-smi` works, and CUDA_VISIBLE_DEVICES"));
    }
    Ok((runtime, devices))
}

/// One that can't be opened (what it needs is not beside it) says nothing about the next.
fn first_that_opens<T>(paths: &[PathBuf], open: impl Fn(&Path) -> Result<T>) -> Result<T> {
    let mut first = None;
    for path in paths {
        match open(path) {
            Ok(opened) => return Ok(opened),
            Err(error) => {
                log::debug!("{error}");
                first.get_or_insert(error);
            }
        }
    }
    Err(first.unwrap_or_else(|| unavailable("libtorch_cuda.so is missing")))
}

/// A driver serves the minor versions of its major version, and all before.
fn check_driver(driver: Option<i32>, runtime: Option<i32>) -> Result<()> {
    match (driver, runtime) {
        (Some(driver), Some(runtime)) if driver / 1000 < runtime / 1000 => {
            Err(unavailable("NVIDIA's driver is too old for this libtorch")
                .expected(
                    format!("a driver for CUDA {}", version_text(runtime)),
                    format!("one for CUDA {}", version_text(driver)),
                )
                .with_hint("update the driver, or give --device cpu"))
        }
        _ => Ok(()),
    }
}

/// `13.0` of 13000.
pub(crate) fn version_text(version: i32) -> String {
    format!("{}.{}", version / 1000, version % 1000 / 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_that_does_not_open_is_passed_over() {
        let paths = ["broken", "whole", "never tried"].map(PathBuf::from);
        let open = |path: &Path| match path.to_str() {
            Some("whole") => Ok(path.to_path_buf()),
            Some("broken") => Err(unavailable("broken")),
            _ => panic!("{}", path.display()),
        };
        assert_eq!(first_that_opens(&paths, open).unwrap(), paths[1]);
        let refusal = first_that_opens(&paths[..1], open).unwrap_err();
        assert_eq!(refusal.to_string(), "CUDA is not available: broken");
    }

    #[test]
    fn a_driver_of_an_older_major_version_is_refused() {
        let error = check_driver(Some(12_080), Some(13_000)).unwrap_err();
        assert_eq!(error.kind(), Kind::Device);
        assert!(error.to_string().contains("expected a driver for CUDA 13.0, found one for CUDA"));
        assert!(check_driver(Some(13_000), Some(13_020)).is_ok());
        assert!(check_driver(Some(14_000), Some(13_000)).is_ok());
    }
}
