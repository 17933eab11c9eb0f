//! Classifies failures on a device by what to do about them.

use tch::TchError;

use crate::engine::torch::calls::TorchResult;
use crate::error::{Error, Kind};

/// Why work on a device stopped.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// Its memory is full: smaller pieces may do.
    OutOfMemory,
    /// Anything else ends the merge.
    Error(Error),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Trouble {
        Trouble::Error(error)
    }
}

/// What torch 2.11 says when a call of CUDA's runtime, of the driver, or of NVIDIA's management library,
/// which its allocator asks when memory is short, fails (c10/cuda/CUDAException.cpp, driver_api.h,
/// CUDACachingAllocator.cpp).
const BROKEN: [&str; 3] = ["CUDA error", "CUDA driver error", "NVML_SUCCESS =="];

/// Result of work on a device.
pub(crate) type Attempt<T> = std::result::Result<T, Trouble>;

/// A failed torch call on a device.
pub(crate) trait DeviceResult<T> {
    /// `what` ends the sentence "torch could not …".
    fn or_trouble(self, what: &str) -> Attempt<T>;
}

impl<T> DeviceResult<T> for std::result::Result<T, TchError> {
    fn or_trouble(self, what: &str) -> Attempt<T> {
        let Err(error) = self else {
            return self.or_torch(what).map_err(Trouble::Error);
        };
        let text = error.to_string();
        // torch's allocator has given its cached memory back and tried again before it says so.
        if text.contains("CUDA") && text.contains("out of memory") {
            return Err(Trouble::OutOfMemory);
        }
        // After any other CUDA error the process can't use the device any more.
        if BROKEN.iter().any(|words| text.contains(words)) {
            let first = text.lines().next().unwrap_or_default().to_owned();
            return Err(Trouble::Error(
                Error::new(Kind::Resource, format!("the GPU broke down, could not {what}"))
                    .expected("", first)
                    .with_hint("run again, with --device cpu where it happens again; see `dmesg`"),
            ));
        }
        Err(error).or_torch(what).map_err(Trouble::Error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(text: &str) -> Trouble {
        let result: std::result::Result<(), TchError> = Err(TchError::Torch(text.to_owned()));
        result.or_trouble("add").unwrap_err()
    }

    #[test]
    fn full_memory_is_told_from_a_broken_device_and_from_a_bug() {
        for text in [
            "CUDA out of memory. Tried to allocate 2 GiB",
            "CUDA error: out of memory",
            "CUDA driver error: out of memory",
        ] {
            assert!(matches!(after(text), Trouble::OutOfMemory), "{text}");
        }
        for (text, kind) in [
            ("CUDA error: an illegal memory access was encountered\nmore", Kind::Resource),
            ("CUDA error: device-side assert triggered", Kind::Resource),
            ("CUDA error: unspecified launch failure", Kind::Resource),
            ("CUDA driver error: unknown error", Kind::Resource),
            ("NVML_SUCCESS == r INTERNAL ASSERT FAILED at \"/pytorch/c10/cuda\"", Kind::Resource),
            ("The size of tensor a must match", Kind::Internal),
        ] {
            assert!(matches!(after(text), Trouble::Error(error) if error.kind() == kind), "{text}");
        }
    }
}
