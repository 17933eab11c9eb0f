//! Reads the rows of the parents from which added rows are computed.

use tch::{Device, Kind as TorchKind, Tensor};

use crate::engine::read::added_rows::{Filler, Row, Values};
use crate::engine::read::mapped_rows::MappedRows;
use crate::engine::read::source::Source;
use crate::engine::torch::buffer::Buffer;
use crate::engine::torch::calls::{TorchResult, torch_error};
use crate::error::Result;
use crate::merge::{Edges, Extend};

/// Elements read at once where a mean over all rows is taken.
const MEAN_ELEMENTS: usize = 1 << 18;

/// Reads what the rows that `short` lacks are computed from; `long` is the other side, if any.
///
/// Without `long`, bridge and inherit become a gradient (the plan warns of it).
pub(crate) fn filler(
    mode: Extend,
    (rows, axis, edges): (&MappedRows, usize, Edges),
    short: &Source<'_>,
    long: Option<&Source<'_>>,
) -> Result<Filler> {
    let added = rows.missing();
    let of = |source: &Source<'_>| Rows::of(source, axis);
    let rows = of(short)?;
    let width = rows.width;
    let gradient = || -> Result<Values> {
        let (start, end) = (rows.row(short, edges.last)?, rows.row(short, edges.first)?);
        Ok(Values::Between { start, end })
    };
    let values = match (mode, long) {
        // Without a row of its own there is nothing to start from.
        _ if rows.n_rows == 0 => match long {
            Some(_) => Values::Other,
            None => Values::Zero,
        },
        (Extend::Gradient | Extend::Error, _) => gradient()?,
        (Extend::Bridge, Some(long)) => {
            let end = of(long)?.row(long, edges.longer_last)?;
            Values::Between { start: rows.row(short, edges.last)?, end }
        }
        (Extend::Inherit, Some(_)) => Values::Other,
        (Extend::Bridge | Extend::Inherit, None) => gradient()?,
        (Extend::Mean, _) => Values::Same(rows.mean(short)?),
        (Extend::Zero, _) => Values::Zero,
    };
    Ok(Filler::new(added, width, values))
}

/// The rows of a tensor: `n_rows` of `width` elements in each block.
#[derive(Clone, Copy)]
struct Rows {
    n_rows: u64,
    width: usize,
}

impl Rows {
    /// Those of a tensor along a dimension.
    fn of(source: &Source<'_>, axis: usize) -> Result<Rows> {
        let shape = &source.tensor.layout.shape;
        let behind = shape.get(axis + 1..).unwrap_or_default();
        let width = behind.iter().fold(1, |width: u64, size| width.saturating_mul(*size));
        let width = usize::try_from(width).map_err(|_| torch_error("a row is too large"))?;
        Ok(Rows { n_rows: shape.get(axis).copied().unwrap_or(0), width })
    }

    /// First element of each block of a source.
    fn blocks(self, source: &Source<'_>) -> impl Iterator<Item = u64> + use<> {
        let block = self.n_rows.saturating_mul(self.width as u64);
        let count = source.numel.checked_div(block).unwrap_or(0);
        (0..count).map(move |number| number * block)
    }

    fn row(self, source: &Source<'_>, row: u64) -> Result<Row> {
        let mut values = Row::new();
        for block in self.blocks(source) {
            let start = block + row * self.width as u64;
            let part = elements(source, start, self.width, TorchKind::Double)?;
            values.extend(Vec::<f64>::try_from(part).or_torch("read a row")?);
        }
        Ok(values)
    }

    /// Mean over the rows, in float64.
    fn mean(self, source: &Source<'_>) -> Result<Row> {
        let mut values = Row::new();
        for block in self.blocks(source) {
            values.extend(mean(source, block, self.n_rows, self.width)?);
        }
        Ok(values)
    }
}

/// Mean over `rows` rows from element `first` on, in float64.
fn mean(source: &Source<'_>, first: u64, rows: u64, width: usize) -> Result<Row> {
    let columns = i64::try_from(width).map_err(|_| torch_error("a row is too large"))?;
    let mut sum =
        Tensor::f_zeros([columns], (TorchKind::Double, Device::Cpu)).or_torch("allocate")?;
    let at_once = (MEAN_ELEMENTS / width.max(1)).max(1) as u64;
    let mut done = 0;
    while done < rows {
        let count = at_once.min(rows - done);
        let numel = usize::try_from(count).unwrap_or(1) * width;
        let start = first + done * width as u64;
        let block = elements(source, start, numel, TorchKind::Double)?;
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

/// Elements `start..start+numel` of a source as a tensor of `kind`.
fn elements(source: &Source<'_>, start: u64, numel: usize, kind: TorchKind) -> Result<Tensor> {
    let mut buffer = Buffer::new(numel * source.item_bytes())?;
    source.read(start, buffer.bytes_mut())?;
    buffer.view(0, source.kind()?, numel)?.f_to_kind(kind).or_torch("convert")
}
