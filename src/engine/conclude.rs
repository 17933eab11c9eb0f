//! The report of a merge, from what the workers found.

use std::collections::{BTreeMap, BTreeSet};

use crate::checkpoint::Checkpoint;
use crate::engine::devices::ComputeDevice;
use crate::engine::report::{MergeReport, TensorReport};
use crate::engine::task::tensor_task::{Finished, MadeOn, Task};
use crate::merge::{Action, MergePlan, Path, Sums, Warning};

/// The report of a finished merge.
pub(crate) fn report(
    plan: &MergePlan,
    tasks: &[Task<'_>],
    finished: &[Option<Finished>],
    parents: [&Checkpoint; 2],
    bytes_read: u64,
    devices: &[ComputeDevice],
) -> MergeReport {
    let mut warnings = Vec::new();
    // Tensors that a device had no memory for, by the device's position.
    let mut left_out: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    let mut buffers = Vec::new();
    let mut tensors = Vec::with_capacity(tasks.len());
    for (task, finished) in tasks.iter().zip(finished) {
        let Some(finished) = finished else {
            // A tensor without elements has no spans.
            tensors.push(tensor_report(task, None, None, "cpu".to_owned()));
            continue;
        };
        let sums = task.merges().then_some(finished.sums);
        let path =
            sums.map(|sums| crate::merge::coefficients(plan.options.method, 0.5, &sums).path);
        let name = |position: usize| devices.get(position).map_or("cpu", |device| &device.name);
        let made: BTreeSet<&str> = finished
            .made_on
            .iter()
            .map(|made_on| match made_on {
                MadeOn::Device(position) => name(*position),
                MadeOn::Cpu | MadeOn::CpuInsteadOf(_) => "cpu",
            })
            .collect();
        let made = made.into_iter().collect::<Vec<_>>().join(", ");
        let report = tensor_report(task, sums, path, made);
        for made_on in &finished.made_on {
            if let MadeOn::CpuInsteadOf(position) = made_on {
                left_out.entry(*position).or_default().push(report.name.clone());
            }
        }
        if let (Some(Path::LerpOpposite), Some(cos_theta)) = (path, report.cos_theta)
            && task.plan.numel > 1
        {
            warnings.push(Warning::Opposite { name: report.name.clone(), cos_theta });
        }
        if finished.differs && task.plan.buffer.is_some() {
            buffers.push(report.name.clone());
        } else if finished.differs && task.plan.action == Action::CopyPrimary {
            warnings.push(Warning::IntegersDiffer { name: report.name.clone() });
        }
        if finished.nonfinite > 0 {
            warnings.push(Warning::NonFinite {
                name: report.name.clone(),
                place: "child",
                count: finished.nonfinite,
            });
        }
        tensors.push(report);
    }
    if !buffers.is_empty() {
        warnings.push(Warning::BuffersDiffer { names: buffers });
    }
    warnings.extend(left_out.into_iter().map(|(position, names)| {
        let device = devices.get(position).map_or_else(String::new, |device| device.name.clone());
        Warning::DeviceMemory { names, device }
    }));
    warnings.extend(parents.iter().flat_map(|parent| unverified(parent)));
    MergeReport {
        t: plan.options.t.clone(),
        tensors,
        warnings,
        devices: match devices {
            [] => vec!["cpu".to_owned()],
            some => some.iter().map(|d| format!("{} ({})", d.name, d.model)).collect(),
        },
        bytes_read,
        contents: Default::default(),
        bytes_written: plan
            .total_size
            .saturating_mul(u64::try_from(plan.options.t.len()).unwrap_or(1)),
    }
}

fn tensor_report(
    task: &Task<'_>,
    sums: Option<Sums>,
    path: Option<Path>,
    device: String,
) -> TensorReport {
    TensorReport {
        name: task.plan.name.clone(),
        dtype: task.plan.dtype,
        shape: task.plan.shape.clone(),
        action: task.plan.action,
        path,
        cos_theta: sums.and_then(|sums| sums.cos_theta()).filter(|cos| cos.is_finite()),
        norm_primary: sums.map(|sums| sums.a_squared.sqrt()).filter(|norm| norm.is_finite()),
        norm_secondary: sums.map(|sums| sums.b_squared.sqrt()).filter(|norm| norm.is_finite()),
        rows_added: task.plan.extension.map_or(0, |rows| rows.to_rows - rows.from_rows),
        device,
    }
}

/// Zip files of a parent whose storages carry no CRC.
fn unverified(parent: &Checkpoint) -> Vec<Warning> {
    let mut counts = vec![0usize; parent.files.len()];
    for storage in &parent.inventory.storages {
        let zip = parent.containers.get(storage.file) == Some(&crate::format::Container::Zip);
        if zip && storage.crc32.is_none() && storage.size_bytes > 0 {
            counts[storage.file] += 1;
        }
    }
    parent
        .files
        .iter()
        .zip(counts)
        .filter(|(_, count)| *count > 0)
        .map(|(file, storages)| Warning::Unverified {
            storages,
            file: file.path().file_name().unwrap_or_default().to_string_lossy().into_owned(),
        })
        .collect()
}
