//! Rows that the shorter vocabulary lacks, made piece by piece.

use tch::{Device, Kind as TorchKind, Tensor};

use crate::engine::source::Source;
use crate::engine::torch::{TorchResult, torch_error};
use crate::error::Result;
use crate::merge::{Extend, Extension};

/// Elements read at once where a mean over all rows is taken.
const MEAN_ELEMENTS: usize = 1 << 18;

/// One row; float64 holds the values of every dtype, and tensors can't be shared by threads.
type Row = Vec<f64>;

/// Makes the rows `from_rows..to_rows` of a tensor `[from_rows, ...]`.
#[derive(Debug)]
pub(crate) struct Filler {
    from_rows: u64,
    /// Rows to make.
    added: u64,
    /// Elements per row.
    width: usize,
    /// The kind that rows are computed in.
    kind: TorchKind,
    values: Values,
}

#[derive(Debug)]
enum Values {
    /// (1 − w)·start + w·end with w = i/(k+1), in float32 (float64 for float64 tensors).
    Between {
        start: Row,
        end: Row,
    },
    /// The same row again and again.
    Same(Row),
    /// The longer parent's own rows.
    Other,
    Zero,
}

impl Filler {
    /// `short` is the side that lacks rows, `long` the other side where the pair has one.
    ///
    /// Without `long`, bridge and inherit become a gradient (the plan warns of it).
    pub(crate) fn new(
        mode: Extend,
        extension: Extension,
        short: &Source<'_>,
        long: Option<&Source<'_>>,
    ) -> Result<Filler> {
        let rows = extension.from_rows.max(1);
        let width =
            usize::try_from(short.numel / rows).map_err(|_| torch_error("a row is too large"))?;
        let gradient = || -> Result<Values> {
            Ok(Values::Between { start: row(short, rows - 1, width)?, end: row(short, 0, width)? })
        };
        let values = match (mode, long) {
            // Without a row of its own there is nothing to start from.
            _ if extension.from_rows == 0 => match long {
                Some(_) => Values::Other,
                None => Values::Zero,
            },
            (Extend::Gradient | Extend::Error, _) => gradient()?,
            (Extend::Bridge, Some(long)) => {
                let last = extension.to_rows.saturating_sub(1);
                Values::Between {
                    start: row(short, rows - 1, width)?,
                    end: row(long, last, width)?,
                }
            }
            (Extend::Inherit, Some(_)) => Values::Other,
            (Extend::Bridge | Extend::Inherit, None) => gradient()?,
            (Extend::Mean, _) => Values::Same(mean(short, rows, width)?),
            (Extend::Zero, _) => Values::Zero,
        };
        Ok(Filler {
            from_rows: extension.from_rows,
            added: extension.to_rows - extension.from_rows,
            width,
            kind: wide_kind(short)?,
            values,
        })
    }

    /// Fills `out` with the elements from `start` on, counted over the whole extended tensor, all
    /// of them in added rows. `other` is the longer parent's piece at the same place.
    pub(crate) fn fill(&self, start: u64, out: &mut Tensor, other: Option<&Tensor>) -> Result<()> {
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
                let row = self.tensor(row)?;
                row.f_unsqueeze(0)
                    .or_torch("take a view")?
                    .f_expand([rows, -1], false)
                    .or_torch("expand")
            })?,
            (Values::Between { start: from, end }, _) => {
                let (from, end) = (self.tensor(from)?, self.tensor(end)?);
                let first_row = start / self.width.max(1) as u64;
                self.block(start, numel, &|rows| {
                    let (keep, take) = self.weights(first_row, rows)?;
                    let left = keep.f_outer(&from).or_torch("extend")?;
                    let right = take.f_outer(&end).or_torch("extend")?;
                    left.f_add(&right).or_torch("extend")
                })?
            }
        };
        out.f_copy_(&made).or_torch("convert")
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

    /// 1 − i/(k+1) and i/(k+1) of rows from `first_row` on, worked in float64.
    fn weights(&self, first_row: u64, rows: i64) -> Result<(Tensor, Tensor)> {
        let steps = self.added as f64 + 1.0;
        let fractions: Vec<f64> = (0..u64::try_from(rows).unwrap_or(0))
            .map(|row| (first_row + row - self.from_rows + 1) as f64 / steps)
            .collect();
        let keep: Vec<f64> = fractions.iter().map(|w| 1.0 - w).collect();
        Ok((self.tensor(&keep)?, self.tensor(&fractions)?))
    }

    fn tensor(&self, values: &[f64]) -> Result<Tensor> {
        Tensor::f_from_slice(values).or_torch("allocate")?.f_to_kind(self.kind).or_torch("convert")
    }
}

/// The kind that rows are computed in.
fn wide_kind(source: &Source<'_>) -> Result<TorchKind> {
    Ok(if source.kind()? == TorchKind::Double { TorchKind::Double } else { TorchKind::Float })
}

/// Elements `start..start+numel` of a source as a tensor of `kind`.
fn elements(source: &Source<'_>, start: u64, numel: usize, kind: TorchKind) -> Result<Tensor> {
    let mut buffer = crate::engine::buffer::Buffer::new(numel * source.item_bytes())?;
    source.read(start, buffer.bytes_mut())?;
    buffer.view(0, source.kind()?, numel)?.f_to_kind(kind).or_torch("convert")
}

fn row(source: &Source<'_>, row: u64, width: usize) -> Result<Row> {
    let row = elements(source, row * width as u64, width, TorchKind::Double)?;
    Vec::try_from(row).or_torch("read a row")
}

/// Mean over the rows, summed in float64 and rounded to the kind that rows are computed in.
fn mean(source: &Source<'_>, rows: u64, width: usize) -> Result<Row> {
    let columns = i64::try_from(width).map_err(|_| torch_error("a row is too large"))?;
    let mut sum =
        Tensor::f_zeros([columns], (TorchKind::Double, Device::Cpu)).or_torch("allocate")?;
    let at_once = (MEAN_ELEMENTS / width.max(1)).max(1) as u64;
    let mut done = 0;
    while done < rows {
        let count = at_once.min(rows - done);
        let numel = usize::try_from(count).unwrap_or(1) * width;
        let block = elements(source, done * width as u64, numel, TorchKind::Double)?;
        let part = block
            .f_view([-1, columns])
            .or_torch("take a view")?
            .f_sum_dim_intlist([0i64].as_slice(), false, TorchKind::Double)
            .or_torch("sum")?;
        let _ = sum.f_add_(&part).or_torch("sum")?;
        done += count;
    }
    let mean = sum.f_div_scalar(rows as f64).or_torch("divide")?;
    Vec::try_from(mean).or_torch("read a row")
}
