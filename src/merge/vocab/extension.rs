//! `Extension`: the rows that one parent's tensor lacks.

use crate::checkpoint::Side;
use crate::merge::vocab::edges::Edges;

/// The rows by which one side of a tensor is extended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Extension {
    /// The shorter side.
    pub side: Side,
    /// Rows that it has.
    pub from_rows: u64,
    /// Rows that it gets.
    pub to_rows: u64,
    /// The dimension that they are counted along: 0 but for a few heads and biases.
    pub axis: usize,
    /// Where gradient and bridge begin and end.
    pub edges: Edges,
}
