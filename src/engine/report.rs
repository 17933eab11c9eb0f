//! What a merge did, tensor by tensor.

use serde::Serialize;

use crate::engine::contents::ContentSums;
use crate::merge::{Action, Path, Warning};
use crate::tensor::DType;

/// A finished merge. With several t, the angles are those of all children; only `t` differs.
#[derive(Clone, Debug, Default, Serialize)]
pub struct MergeReport {
    /// The t of each child.
    pub t: Vec<f64>,
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
    /// Counts over all tensors.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts { tensors: self.tensors.len(), ..Counts::default() };
        for tensor in &self.tensors {
            match tensor.path {
                Some(Path::Slerp) => counts.slerp += 1,
                Some(_) => counts.lerp += 1,
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
