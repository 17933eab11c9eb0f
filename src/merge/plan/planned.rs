//! The parts of a plan: the child's tensors, their storages and its weight files.

use std::sync::Arc;

use serde::Serialize;

use crate::checkpoint::Side;

use crate::merge::names::buffers::KnownBuffer;
use crate::merge::options::Method;
use crate::merge::vocab::by_word::WordRows;
use crate::merge::vocab::edges::Edges;
use crate::merge::vocab::extension::Extension;
use crate::merge::vocab::row_map::RowMap;
use crate::tensor::DType;

/// One name of the child.
#[derive(Clone, Debug, Serialize)]
pub struct PlannedTensor {
    /// Name in the state dict.
    pub name: String,
    /// Index into the plan's storages; tied names share one.
    pub storage: usize,
}

/// One tensor to be made: contiguous, alone in its storage.
#[derive(Clone, Debug, Serialize)]
pub struct PlannedStorage {
    /// The first name that shows it.
    pub name: String,
    /// dtype in the child.
    pub dtype: DType,
    /// Shape in the child.
    pub shape: Vec<u64>,
    /// How it is made.
    pub action: Action,
    /// Index of the primary's tensor in its inventory.
    pub primary: Option<usize>,
    /// Index of the secondary's tensor in its inventory.
    pub secondary: Option<usize>,
    /// Rows that one side lacks.
    pub extension: Option<Extension>,
    /// Its rows by word, where they are merged so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by_word: Option<WordRows>,
    /// The known buffer that it is, if any.
    pub buffer: Option<KnownBuffer>,
    /// Elements.
    pub numel: u64,
    /// Its t in each child, where both parents go into it; else nothing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub t: Vec<f64>,
}

impl PlannedStorage {
    /// Whether any child is made of both parents, and more than a copy of one.
    pub fn blends(&self) -> bool {
        self.t.iter().any(|t| *t != 0.0 && *t != 1.0)
    }

    /// Bytes in the child.
    pub fn size_bytes(&self) -> u64 {
        self.numel * self.dtype.size_bytes()
    }

    /// How the rows of one parent's tensor are mapped; `None` where each is in its place.
    pub fn mapped(&self, side: Side) -> Option<Mapped> {
        if let Some(WordRows { axis, by }) = &self.by_word {
            let map = by.map(side);
            let mapped = Mapped { map: Arc::clone(map), axis: *axis, edges: by.edges_of(side) };
            return (!map.is_identity()).then_some(mapped);
        }
        let Extension { from_rows, to_rows, axis, edges, .. } =
            self.extension.filter(|extension| extension.side == side)?;
        Some(Mapped { map: Arc::new(RowMap::extended(from_rows, to_rows)), axis, edges })
    }

    /// Rows that a parent lacks, of both together.
    pub fn rows_added(&self) -> u64 {
        let sides = [Side::Primary, Side::Secondary].into_iter();
        sides.filter_map(|side| self.mapped(side)).map(|mapped| mapped.map.missing()).sum()
    }
}

/// The rows of a parent's tensor in the child.
#[derive(Clone, Debug)]
pub struct Mapped {
    /// Which row becomes which.
    pub map: Arc<RowMap>,
    /// The dimension that they are counted along.
    pub axis: usize,
    /// Between which rows those that it lacks are computed.
    pub edges: Edges,
}

/// How a tensor of the child is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Both parents, along an arc (or a line where the arc is none).
    Slerp,
    /// Both parents, along a line.
    Linear,
    /// Copied from the primary: not floating, only there, or a known buffer.
    CopyPrimary,
    /// Copied from the secondary: only there.
    CopySecondary,
    /// Copied, since there is one model and nothing to merge it with.
    Copy,
}

impl Action {
    /// How `method` merges two tensors.
    pub(crate) fn merging(method: Method) -> Action {
        match method {
            Method::Slerp => Action::Slerp,
            Method::Linear => Action::Linear,
        }
    }

    /// Whether both parents' values go into the child's.
    pub fn is_merge(self) -> bool {
        match self {
            Action::Slerp | Action::Linear => true,
            Action::CopyPrimary | Action::CopySecondary | Action::Copy => false,
        }
    }

    /// Whether the factors come from sums over the whole tensor, so that all of it is read before its
    /// first element is made.
    pub fn needs_sums(self) -> bool {
        match self {
            Action::Slerp => true,
            Action::Linear | Action::CopyPrimary | Action::CopySecondary | Action::Copy => false,
        }
    }
}

/// One weight file of the child.
#[derive(Clone, Debug, Serialize)]
pub struct PlannedShard {
    /// `pytorch_model.bin` or `pytorch_model-0000X-of-0000N.bin`, `model.safetensors` and so on, with
    /// diffusers' stem for a primary of diffusers.
    pub file_name: String,
    /// Indices into the plan's tensors, in the file's order.
    pub tensors: Vec<usize>,
}
