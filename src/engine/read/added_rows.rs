//! Computes the vocabulary rows that a parent lacks, piece by piece. A "row" holds the values of
//! one token, along whichever dimension tokens are counted.

use tch::Tensor;

use crate::engine::torch::calls::{TorchResult, torch_error};
use crate::engine::torch::ops::round_into;
use crate::error::Result;

/// The values of one token, in the order of the blocks of
/// [`MappedRows`](crate::engine::read::mapped_rows::MappedRows). In float64, which holds the
/// values of every dtype; a tensor could not be shared by threads.
pub(crate) type Row = Vec<f64>;

/// Computes the rows that a parent lacks, which are counted in the child's order.
#[derive(Debug)]
pub(crate) struct Filler {
    /// Rows to make.
    added: u64,
    /// Elements per row in one block.
    width: usize,
    values: Values,
}

#[derive(Debug)]
pub(crate) enum Values {
    /// (1 − w)·start + w·end with w = i/(k+1), in float64, rounded once to the tensor's dtype.
    Between {
        start: Row,
        end: Row,
    },
    /// The same row again and again.
    Same(Row),
    /// The other parent's own rows.
    Other,
    Zero,
}

impl Filler {
    /// `added` rows of `width` elements in each block.
    pub(crate) fn new(added: u64, width: usize, values: Values) -> Filler {
        Filler { added, width, values }
    }

    /// Fills `out` with elements of a block's added rows from element `start` of them on. `other` is
    /// the other parent's piece at the same place.
    pub(crate) fn fill(
        &self,
        (block, start): (u64, u64),
        out: &mut Tensor,
        other: Option<&Tensor>,
    ) -> Result<()> {
        let numel = out.numel();
        if numel == 0 {
            return Ok(());
        }
        let made = match (&self.values, other) {
            (Values::Other, Some(other)) => other.shallow_clone(),
            (Values::Zero | Values::Other, _) => {
                let _ = out.f_zero_().or_torch("fill")?;
                return Ok(());
            }
            (Values::Same(row), _) => self.block(start, numel, &|rows| {
                let row = row_tensor(self.part(row, block)?)?;
                row.f_unsqueeze(0)
                    .or_torch("take a view")?
                    .f_expand([rows, -1], false)
                    .or_torch("expand")
            })?,
            (Values::Between { start: from, end }, _) => {
                let from = row_tensor(self.part(from, block)?)?;
                let end = row_tensor(self.part(end, block)?)?;
                let first_row = start / self.width.max(1) as u64;
                self.block(start, numel, &|rows| {
                    let (keep, take) = self.weights(first_row, rows)?;
                    let left = keep.f_outer(&from).or_torch("extend")?;
                    let right = take.f_outer(&end).or_torch("extend")?;
                    let sum = left.f_add(&right).or_torch("extend")?;
                    sum.f_div_scalar(self.steps()).or_torch("extend")
                })?
            }
        };
        // What is made may be a view of rows that others are made of.
        let mut wide = made.f_empty_like().or_torch("allocate")?;
        wide.f_copy_(&made).or_torch("copy")?;
        let scratch = wide.f_empty_like().or_torch("allocate")?;
        round_into(out, &wide, &scratch).or_torch("convert")
    }

    /// The part of a row that is in a block.
    fn part<'r>(&self, row: &'r Row, block: u64) -> Result<&'r [f64]> {
        let start = usize::try_from(block).ok().and_then(|block| block.checked_mul(self.width));
        let part = start.and_then(|start| row.get(start..)?.get(..self.width));
        part.ok_or_else(|| torch_error("a row has no such part"))
    }

    /// The elements `start..start+numel` of rows that `make` gives from the first one needed on.
    fn block(
        &self,
        start: u64,
        numel: usize,
        make: &dyn Fn(i64) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let width = self.width.max(1) as u64;
        let skip = start % width;
        let rows = (skip + numel as u64).div_ceil(width);
        let rows = i64::try_from(rows).map_err(|_| torch_error("too many rows"))?;
        let skip = i64::try_from(skip).map_err(|_| torch_error("too many rows"))?;
        let numel = i64::try_from(numel).map_err(|_| torch_error("too many rows"))?;
        make(rows)?
            .f_reshape([-1])
            .or_torch("take a view")?
            .f_narrow(0, skip, numel)
            .or_torch("take a view")
    }

    /// The weights k+1−i and i of the rows from `first_row` on. The division by k+1 comes last: for
    /// 16-bit rows the sum of the products is exact in float64, so a value half way between two
    /// others stays there.
    fn weights(&self, first_row: u64, rows: i64) -> Result<(Tensor, Tensor)> {
        let take: Vec<f64> =
            (0..u64::try_from(rows).unwrap_or(0)).map(|row| (first_row + row + 1) as f64).collect();
        let keep: Vec<f64> = take.iter().map(|i| self.steps() - i).collect();
        Ok((row_tensor(&keep)?, row_tensor(&take)?))
    }

    /// k+1.
    fn steps(&self) -> f64 {
        self.added as f64 + 1.0
    }
}

fn row_tensor(values: &[f64]) -> Result<Tensor> {
    Tensor::f_from_slice(values).or_torch("allocate")
}
