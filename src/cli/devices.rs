//! `devices`: lists the devices that a merge can be computed on.

use crate::cli::args::OutputArgs;
use crate::cli::{merge, print};
use crate::engine::{Devices, devices as look};
use crate::error::Result;
use crate::tensor::{JsonPath, counted, escape, human_bytes};

/// Shows what a merge could be computed on.
pub(crate) fn devices(output: &OutputArgs) -> Result<()> {
    let devices = look()?;
    if output.json {
        return print::json(&devices);
    }
    print::result(&print::table(&rows(&devices)))
}

fn rows(devices: &Devices) -> Vec<[String; 2]> {
    let path = |path: &Option<JsonPath>| match path {
        Some(path) => escape(&path.0.to_string_lossy()),
        None => "not found".to_owned(),
    };
    let row = |name: &str, text: String| [name.to_owned(), text];
    let known = |text: &Option<String>| text.clone().unwrap_or_else(|| "unknown".to_owned());
    let mut rows = vec![
        row(
            "libtorch",
            format!("{}, {}", known(&devices.libtorch_version), path(&devices.libtorch)),
        ),
        row("libtorch_cuda", path(&devices.cuda_library)),
    ];
    match (&devices.driver_cuda, &devices.driver) {
        (None, None) => rows.push(row("driver", "not found".to_owned())),
        (cuda, version) => {
            rows.push(row("driver", format!("{}, for CUDA up to {}", known(version), known(cuda))))
        }
    }
    if let Some(runtime) = &devices.cuda_runtime {
        rows.push(row("CUDA", format!("available, runtime {runtime}")));
    } else if devices.cuda_available {
        rows.push(row("CUDA", "available".to_owned()));
    }
    if let Some(why) = &devices.cuda_unavailable_because {
        rows.push(row("CUDA", why.strip_prefix("CUDA is ").unwrap_or(why).to_owned()));
    }
    if let Some(hint) = &devices.hint {
        rows.push(row("hint", hint.clone()));
    }
    for device in &devices.devices {
        let total = human_bytes(device.total_bytes);
        let memory = match device.free_bytes {
            Some(free) => format!("{} free of {total}", human_bytes(free)),
            None => total,
        };
        rows.push(row(&device.name, format!("{}, {memory}", escape(&device.model))));
    }
    rows.push(row("cpu", counted(merge::cores() as u64, "core")));
    rows
}
