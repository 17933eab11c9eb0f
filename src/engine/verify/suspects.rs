//! Finds suspicious tensors among those that were read whole: all zero, far larger or smaller than
//! others of their kind, or untied though config.json ties them.

use crate::checkpoint::{Checkpoint, Finding, TensorEntry};
use crate::engine::verify::gauge::Tally;
use crate::engine::verify::region::Region;
use crate::merge::{is_matrix, outliers, stored_apart};

/// What is worth a look, by the regions that all were read.
pub(crate) fn suspects(checkpoint: &Checkpoint, regions: &[Region<'_>]) -> Vec<Finding> {
    let tensors = &checkpoint.inventory.tensors;
    let mut zero = Vec::new();
    let mut measured: Vec<(&TensorEntry, f64)> = Vec::new();
    for region in regions {
        for tensor in region.tensors.iter().filter_map(|position| tensors.get(*position)) {
            let Some(tally) = region.tally(tensor.dtype) else { continue };
            if tally.largest == 0.0 && is_matrix(tensor) {
                zero.push(tensor.name.clone());
            } else if let Some(numel) = whole(tensor, region) {
                measured.push((tensor, tally.root_mean_square(numel)));
            }
        }
    }
    let mut found = Vec::new();
    found.extend(untied_head(checkpoint, regions));
    if !zero.is_empty() {
        found.push(Finding::AllZero { tensors: zero });
    }
    found.extend(outliers(&measured).into_iter().map(|outlier| Finding::FarFromItsLike {
        tensor: outlier.tensor.name.clone(),
        rms: outlier.rms,
        median: outlier.median,
        of: outlier.of,
    }));
    found
}

/// The elements of a tensor that shows all bytes of its region, and so is what the region's tally says.
fn whole(tensor: &TensorEntry, region: &Region<'_>) -> Option<u64> {
    let numel = tensor.layout.numel()?;
    let item = tensor.dtype.size_bytes();
    let all = numel.checked_mul(item) == Some(region.size_bytes);
    (all && tensor.layout.end() == Some(numel)).then_some(numel)
}

/// A head whose bytes are not those of the embedding that config.json ties it to, told by the CRC-32 of
/// what was read.
fn untied_head(checkpoint: &Checkpoint, regions: &[Region<'_>]) -> Option<Finding> {
    let (embedding, head) = stored_apart(checkpoint)?;
    let tensor = |position: usize| checkpoint.inventory.tensors.get(position);
    let (embedding, head) = ((embedding, tensor(embedding)?), (head, tensor(head)?));
    let sum = |(position, tensor): (usize, &TensorEntry)| {
        let region = regions.iter().find(|region| region.tensors.contains(&position))?;
        region.tally(tensor.dtype)?;
        whole(tensor, region).map(|_| (region.found_crc(), region.big_endian))
    };
    let same_view = embedding.1.layout == head.1.layout;
    let differs = !same_view || sum(embedding)? != sum(head)?;
    differs.then(|| Finding::UntiedHead {
        tensor: head.1.name.clone(),
        embedding: embedding.1.name.clone(),
    })
}

impl Region<'_> {
    /// The tally of all its bytes as one dtype; `None` where they were not all read, or are not finite.
    fn tally(&self, dtype: crate::tensor::DType) -> Option<Tally> {
        self.lenses.iter().find(|lens| lens.dtype == dtype)?.tally(self.spans())
    }
}
