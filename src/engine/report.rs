//! The report of a finished merge, tensor by tensor.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::checkpoint::Checkpoint;
use crate::engine::contents::ContentSums;
use crate::engine::devices::ComputeDevice;
use crate::engine::task::tensor_task::{Finished, MadeOn, Task};
use crate::merge::{Action, MergePlan, Path, Sums, Warning, coefficients};
use crate::tensor::DType;

/// A finished merge. The angles are those of all children; only t differs.
#[derive(Clone, Debug, Default, Serialize)]
pub struct MergeReport {
    /// One entry per distinct tensor of the child, in its order.
    pub tensors: Vec<TensorReport>,
    /// What the merge met on its way.
    pub warnings: Vec<Warning>,
    /// The devices that shared the work, `cuda:0 (NVIDIA H200)`, or `cpu`.
    pub devices: Vec<String>,
    /// Bytes read from both parents.
    pub bytes_read: u64,
    /// Bytes of tensors written, over all children.
    pub bytes_written: u64,
    /// CRC-32 of what was read of the parents' storages, where their files keep none.
    #[serde(skip)]
    pub contents: ContentSums,
}

/// What was done to one tensor.
#[derive(Clone, Debug, Serialize)]
pub struct TensorReport {
    /// Its (first) name.
    pub name: String,
    /// dtype in the child.
    pub dtype: DType,
    /// Shape in the child.
    pub shape: Vec<u64>,
    /// What was planned.
    pub action: Action,
    /// t in each child, for merged tensors.
    #[serde(skip)]
    pub t: Vec<f64>,
    /// Arc or line, for merged tensors.
    pub path: Option<Path>,
    /// Cosine of the angle between the parents, for merged tensors with a direction.
    pub cos_theta: Option<f64>,
    /// ‖a‖, for merged tensors.
    pub norm_primary: Option<f64>,
    /// ‖b‖, for merged tensors.
    pub norm_secondary: Option<f64>,
    /// Vocabulary rows added.
    pub rows_added: u64,
    /// What computed it: `cpu`, or devices by name.
    pub device: String,
}

/// Counts for the summary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Counts {
    /// Distinct tensors.
    pub tensors: usize,
    /// Along an arc.
    pub slerp: usize,
    /// Along a line.
    pub lerp: usize,
    /// Copied from a parent.
    pub carried: usize,
    /// Vocabulary rows added to the embedding (the largest number of any tensor).
    pub rows_added: u64,
    /// Smallest angle in degrees.
    pub smallest_angle: Option<f64>,
    /// Largest angle in degrees.
    pub largest_angle: Option<f64>,
}

impl MergeReport {
    /// The report of a finished merge.
    pub(crate) fn of(
        plan: &MergePlan,
        tasks: &[Task<'_>],
        finished: &[Option<Finished>],
        parents: [&Checkpoint; 2],
        devices: &[ComputeDevice],
        (bytes_read, contents): (u64, ContentSums),
    ) -> MergeReport {
        let mut warnings = Vec::new();
        // Tensors that a device had no memory for, by the device's position.
        let mut left_out: BTreeMap<usize, Vec<String>> = BTreeMap::new();
        let mut buffers = Vec::new();
        let mut tensors = Vec::with_capacity(tasks.len());
        for (task, finished) in tasks.iter().zip(finished) {
            let Some(finished) = finished else {
                // A tensor without elements has no spans.
                tensors.push(TensorReport::of(task, None, None, "cpu".to_owned()));
                continue;
            };
            let sums = task.merges().then_some(finished.sums);
            let path = sums.map(|sums| coefficients(plan.options.method, 0.5, &sums).path);
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
            let report = TensorReport::of(task, sums, path, made);
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
            let device =
                devices.get(position).map_or_else(String::new, |device| device.name.clone());
            Warning::DeviceMemory { names, device }
        }));
        warnings.extend(parents.iter().flat_map(|parent| unverified(parent)));
        MergeReport {
            tensors,
            warnings,
            devices: match devices {
                [] => vec!["cpu".to_owned()],
                some => some.iter().map(|d| format!("{} ({})", d.name, d.model)).collect(),
            },
            bytes_read,
            contents,
            bytes_written: plan
                .total_size
                .saturating_mul(u64::try_from(plan.options.children.len()).unwrap_or(1)),
        }
    }

    /// Counts over all tensors.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts { tensors: self.tensors.len(), ..Counts::default() };
        for tensor in &self.tensors {
            match tensor.path {
                Some(path) if path.is_line() => counts.lerp += 1,
                Some(_) => counts.slerp += 1,
                None => counts.carried += 1,
            }
            counts.rows_added = counts.rows_added.max(tensor.rows_added);
            if let Some(cos_theta) = tensor.cos_theta {
                let angle = cos_theta.acos().to_degrees();
                let smallest = counts.smallest_angle.get_or_insert(angle);
                *smallest = smallest.min(angle);
                let largest = counts.largest_angle.get_or_insert(angle);
                *largest = largest.max(angle);
            }
        }
        counts
    }
}

impl TensorReport {
    fn of(task: &Task<'_>, sums: Option<Sums>, path: Option<Path>, device: String) -> TensorReport {
        TensorReport {
            name: task.plan.name.clone(),
            dtype: task.plan.dtype,
            shape: task.plan.shape.clone(),
            action: task.plan.action,
            t: task.plan.t.clone(),
            path,
            cos_theta: sums.and_then(|sums| sums.cos_theta()).filter(|cos| cos.is_finite()),
            norm_primary: sums.map(|sums| sums.a_squared.sqrt()).filter(|norm| norm.is_finite()),
            norm_secondary: sums.map(|sums| sums.b_squared.sqrt()).filter(|norm| norm.is_finite()),
            rows_added: task.plan.rows_added(),
            device,
        }
    }
}

/// Zip files of a parent whose storages carry no CRC.
fn unverified(parent: &Checkpoint) -> Vec<Warning> {
    let mut counts = vec![0usize; parent.files.len()];
    for storage in &parent.inventory.storages {
        let container = parent.containers.get(storage.file);
        let checked = container.is_some_and(|container| container.has_checksums());
        if checked && storage.crc32.is_none() && storage.size_bytes > 0 {
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
