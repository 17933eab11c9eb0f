//! Chooses the devices that a merge is computed on, and lists those of this machine.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tch::{Device, Kind as TorchKind, Tensor};

use crate::engine::cuda::driver::DriverDevice;
use crate::engine::cuda::opening;
use crate::engine::cuda::runtime::Runtime;
use crate::engine::faults::{Faults, StandIns};
use crate::engine::torch::calls::TorchResult;
use crate::error::{Error, Kind, Result};
use crate::tensor::JsonPath;

/// What `--device` asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceChoice {
    /// The first CUDA device where there is one, else the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// These CUDA devices, by number; they share the tensors of a merge.
    Cuda(Vec<usize>),
}

/// A device that is there and answers. Without any, a merge is computed on the CPU.
#[derive(Clone, Debug)]
pub struct ComputeDevice {
    /// torch's name for it, `cuda:0`.
    pub name: String,
    /// What it is, `NVIDIA H200`.
    pub model: String,
    /// Free memory in bytes when it was looked at.
    pub free_bytes: u64,
    /// All its memory in bytes.
    pub total_bytes: u64,
    pub(crate) device: Device,
    /// Failures to inject, where the CPU stands in for a GPU in tests.
    pub(crate) faults: Option<Arc<Faults>>,
}

/// What `devices` shows.
#[derive(Debug, Serialize)]
pub struct Devices {
    /// The libtorch that is loaded, `libtorch_cpu.so`.
    pub libtorch: Option<JsonPath>,
    /// Its version.
    pub libtorch_version: Option<String>,
    /// Whether `--device cuda` works.
    pub cuda_available: bool,
    /// Why it doesn't, in one sentence.
    pub cuda_unavailable_because: Option<String>,
    /// What may help.
    pub hint: Option<String>,
    /// `libtorch_cuda.so`: the one that was opened, else the first that fits.
    pub cuda_library: Option<JsonPath>,
    /// CUDA version of the runtime that libtorch brings.
    pub cuda_runtime: Option<String>,
    /// Largest CUDA version that the driver serves.
    pub driver_cuda: Option<String>,
    /// The driver's own version.
    pub driver: Option<String>,
    /// The devices that `--device cuda:N` takes.
    pub devices: Vec<DeviceInfo>,
}

/// A device of the list.
#[derive(Debug, Serialize)]
pub struct DeviceInfo {
    /// torch's name for it.
    pub name: String,
    /// What it is.
    pub model: String,
    /// Free memory in bytes, where CUDA starts on it.
    pub free_bytes: Option<u64>,
    /// All its memory in bytes.
    pub total_bytes: u64,
}

impl DeviceChoice {
    /// The choice that is written as `auto`, `cpu`, `cuda` (the first device) or `cuda:N,M`.
    ///
    /// # Errors
    /// A sentence, for any other text.
    pub fn parse(text: &str) -> std::result::Result<DeviceChoice, String> {
        let wrong = || format!("expected auto, cpu, cuda or cuda:N[,M...], got `{text}`");
        match text.trim() {
            "auto" => return Ok(DeviceChoice::Auto),
            "cpu" => return Ok(DeviceChoice::Cpu),
            "cuda" => return Ok(DeviceChoice::Cuda(vec![0])),
            _ => {}
        }
        let list = text.trim().strip_prefix("cuda:").ok_or_else(wrong)?;
        let mut numbers = Vec::new();
        for word in list.split(',') {
            let word = word.trim();
            // `+1` would be a number for Rust.
            let digits = word.strip_prefix("cuda:").unwrap_or(word);
            let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            let number: usize = digits.parse().ok().filter(|_| plain).ok_or_else(wrong)?;
            if numbers.contains(&number) {
                return Err(format!("cuda:{number} is named twice"));
            }
            numbers.push(number);
        }
        Ok(DeviceChoice::Cuda(numbers))
    }

    /// The devices of this choice, started; none means the CPU.
    ///
    /// # Errors
    /// [`Kind::Device`] where a device that was asked for by name is not there.
    pub fn resolve(&self) -> Result<Vec<ComputeDevice>> {
        let numbers = match self {
            DeviceChoice::Cpu => return Ok(Vec::new()),
            DeviceChoice::Auto => &[0],
            DeviceChoice::Cuda(numbers) => numbers.as_slice(),
        };
        let found = available().and_then(|all| numbers.iter().map(|n| pick(&all, *n)).collect());
        match found {
            Err(error) if *self == DeviceChoice::Auto && error.kind() == Kind::Device => {
                // Without a driver, or with all GPUs hidden, nothing is amiss.
                let hidden = std::env::var("CUDA_VISIBLE_DEVICES").is_ok();
                let level = match driver_text() {
                    Some(_) if !hidden => log::Level::Warn,
                    _ => log::Level::Info,
                };
                log::log!(level, "computing on the CPU: {error}");
                Ok(Vec::new())
            }
            found => found,
        }
    }

    /// Whether the devices are there, without starting them.
    ///
    /// # Errors
    /// As [`DeviceChoice::resolve`].
    pub fn check(&self) -> Result<()> {
        let DeviceChoice::Cuda(numbers) = self else { return Ok(()) };
        let all = available()?;
        numbers.iter().try_for_each(|number| find(&all, *number).map(drop))
    }
}

/// A device that could be taken.
enum Found {
    Cuda(&'static Runtime, usize, DriverDevice),
    Test(ComputeDevice),
}

/// The stand-ins of a test, where it asks for some.
fn test_devices() -> Result<Option<Vec<ComputeDevice>>> {
    let Some(StandIns { count, memory, faults }) = StandIns::of_environment()? else {
        return Ok(None);
    };
    let devices = (0..count).map(|index| ComputeDevice {
        name: format!("cuda:{index}"),
        model: "stand-in for tests, on the CPU".to_owned(),
        free_bytes: memory,
        total_bytes: memory,
        device: Device::Cpu,
        faults: Some(Arc::clone(&faults)),
    });
    Ok(Some(devices.collect()))
}

/// All devices, in order.
fn available() -> Result<Vec<Found>> {
    if let Some(devices) = test_devices()? {
        return Ok(devices.into_iter().map(Found::Test).collect());
    }
    let (runtime, devices) = opening::open()?;
    let found = devices.into_iter().enumerate();
    Ok(found.map(|(index, device)| Found::Cuda(runtime, index, device)).collect())
}

fn find(all: &[Found], number: usize) -> Result<&Found> {
    all.get(number).ok_or_else(|| {
        let last = all.len().saturating_sub(1);
        let there = if last == 0 { "cuda:0".to_owned() } else { format!("cuda:0 to cuda:{last}") };
        Error::new(Kind::Device, format!("there is no cuda:{number}"))
            .expected(there, format!("cuda:{number}"))
            .with_hint("`llm-slerp-merge devices` lists them; CUDA_VISIBLE_DEVICES hides some")
    })
}

/// Starts a device.
fn pick(all: &[Found], number: usize) -> Result<ComputeDevice> {
    let (runtime, index, model) = match find(all, number)? {
        Found::Test(device) => return Ok(device.clone()),
        Found::Cuda(runtime, index, device) => (runtime, *index, &device.name),
    };
    let device = Device::Cuda(index);
    // torch's part of CUDA starts here, in one thread, and not later in all workers at once.
    let started = Tensor::f_zeros([1], (TorchKind::Uint8, device)).or_torch("start the device");
    let _ = started.map_err(|error| {
        Error::new(Kind::Device, format!("cuda:{number} does not start"))
            .expected("", error.to_string())
            .with_hint("see whether `nvidia-smi` works, and who else uses that GPU")
    })?;
    let (free_bytes, total_bytes) = runtime.memory(index)?;
    Ok(ComputeDevice {
        name: format!("cuda:{number}"),
        model: model.clone(),
        free_bytes,
        total_bytes,
        device,
        faults: None,
    })
}

/// Everything that `devices` shows.
///
/// # Errors
/// [`Kind::Usage`] where the tests' stand-in is asked for in words that it does not know.
pub fn devices() -> Result<Devices> {
    let sight = opening::look();
    let mut shown = Devices {
        libtorch: sight.libtorch.as_ref().map(|loaded| JsonPath(loaded.cpu.clone())),
        libtorch_version: sight.libtorch.and_then(|loaded| loaded.version),
        cuda_available: false,
        cuda_unavailable_because: None,
        hint: None,
        cuda_library: sight.libraries.ok().and_then(|paths| paths.into_iter().next()).map(JsonPath),
        cuda_runtime: None,
        driver_cuda: sight.driver_version.map(opening::version_text),
        driver: driver_text(),
        devices: Vec::new(),
    };
    let mut free: Box<dyn Fn(usize) -> Option<u64>> = Box::new(|_| None);
    let opened = match test_devices()? {
        Some(devices) => {
            shown.cuda_available = true;
            for device in devices {
                shown.devices.push(DeviceInfo {
                    name: device.name,
                    model: device.model,
                    free_bytes: Some(device.free_bytes),
                    total_bytes: device.total_bytes,
                });
            }
            return Ok(shown);
        }
        None => opening::open(),
    };
    match opened {
        Ok((runtime, _)) => {
            shown.cuda_available = true;
            shown.cuda_library = Some(JsonPath(runtime.library.clone()));
            shown.cuda_runtime = runtime.version().map(opening::version_text);
            free = Box::new(|index| runtime.memory(index).ok().map(|memory| memory.0));
        }
        Err(error) => {
            shown.hint = error.hint().map(str::to_owned);
            shown.cuda_unavailable_because = Some(error.to_string());
        }
    }
    let devices = sight.devices.unwrap_or_default().into_iter().enumerate();
    shown.devices = devices
        .map(|(index, device)| DeviceInfo {
            name: format!("cuda:{index}"),
            model: device.name,
            free_bytes: free(index),
            total_bytes: device.total_bytes,
        })
        .collect();
    Ok(shown)
}

/// The driver's own version, as its kernel module tells it.
fn driver_text() -> Option<String> {
    let text = std::fs::read_to_string("/proc/driver/nvidia/version").ok()?;
    let is_version =
        |word: &&str| word.contains('.') && word.split('.').all(|part| part.parse::<u32>().is_ok());
    text.lines().next()?.split_whitespace().find(is_version).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_named_as_torch_names_them() {
        let cuda = |numbers: &[usize]| Ok(DeviceChoice::Cuda(numbers.to_vec()));
        assert_eq!(DeviceChoice::parse("auto"), Ok(DeviceChoice::Auto));
        assert_eq!(DeviceChoice::parse("cpu"), Ok(DeviceChoice::Cpu));
        assert_eq!(DeviceChoice::parse("cuda"), cuda(&[0]));
        assert_eq!(DeviceChoice::parse("cuda:3"), cuda(&[3]));
        assert_eq!(DeviceChoice::parse("cuda:0,2"), cuda(&[0, 2]));
        assert_eq!(DeviceChoice::parse("cuda:1,cuda:0"), cuda(&[1, 0]));
    }

    #[test]
    fn other_words_are_no_devices() {
        for text in ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "cuda:+1", "cuda:0,", "cuda:1,1"] {
            assert!(DeviceChoice::parse(text).is_err(), "{text}");
        }
        assert_eq!(DeviceChoice::parse("cuda:1,1").unwrap_err(), "cuda:1 is named twice");
    }
}
