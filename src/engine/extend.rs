//! Rows that the shorter vocabulary lacks, made piece by piece.

use tch::{Device, Kind as TorchKind, Tensor};

use crate::engine::kernel::is_narrow;
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
    values: Values,
}

#[derive(Debug)]
enum Values {
    /// (1 − w)·start + w·end with w = i/(k+1), in float64, rounded once to the tensor's dtype.
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
                let row = row_tensor(row)?;
                row.f_unsqueeze(0)
                    .or_torch("take a view")?
                    .f_expand([rows, -1], false)
                    .or_torch("expand")
            })?,
            (Values::Between { start: from, end }, _) => {
                let (from, end) = (row_tensor(from)?, row_tensor(end)?);
                let first_row = start / self.width.max(1) as u64;
                self.block(start, numel, &|rows| {
                    let (keep, take) = self.weights(first_row, rows)?;
                    let left = keep.f_outer(&from).or_torch("extend")?;
                    let right = take.f_outer(&end).or_torch("extend")?;
                    left.f_add(&right).or_torch("extend")
                })?
            }
        };
        out.f_copy_(&round_once(&made, out.kind())?).or_torch("convert")
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
        Ok((row_tensor(&keep)?, row_tensor(&fractions)?))
    }
}

/// Elements `start..start+numel` of a source as a tensor of `kind`.
fn elements(source: &Source<'_>, start: u64, numel: usize, kind: TorchKind) -> Result<Tensor> {
    let mut buffer = crate::engine::buffer::Buffer::new(numel * source.item_bytes())?;
    source.read(start, buffer.bytes_mut())?;
    buffer.view(0, source.kind()?, numel)?.f_to_kind(kind).or_torch("convert")
}

/// float64 rows for a narrower kind, so that torch's way through float32 rounds them once.
///
/// Rounding to odd keeps in the last bit that something was cut off, so the next rounding, to
/// nearest and to at least two bits fewer, is that of the exact value (Boldo and Melquiond, 2008).
fn round_once(made: &Tensor, kind: TorchKind) -> Result<Tensor> {
    if made.kind() != TorchKind::Double || !is_narrow(kind) {
        return Ok(made.shallow_clone());
    }
    let values: Vec<f64> = Vec::try_from(made).or_torch("read rows")?;
    let odd: Vec<f32> = values.into_iter().map(round_to_odd).collect();
    Tensor::f_from_slice(&odd).or_torch("allocate")
}

fn round_to_odd(value: f64) -> f32 {
    #[expect(clippy::cast_possible_truncation, reason = "what is cut off goes into the last bit")]
    let nearest = value as f32;
    let back = f64::from(nearest);
    if back == value || !nearest.is_finite() {
        return nearest;
    }
    let towards_zero =
        if back.abs() > value.abs() { nearest.to_bits() - 1 } else { nearest.to_bits() };
    f32::from_bits(towards_zero | 1)
}

fn row_tensor(values: &[f64]) -> Result<Tensor> {
    Tensor::f_from_slice(values).or_torch("allocate")
}

fn row(source: &Source<'_>, row: u64, width: usize) -> Result<Row> {
    let row = elements(source, row * width as u64, width, TorchKind::Double)?;
    Vec::try_from(row).or_torch("read a row")
}

/// Mean over the rows, in float64.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_just_beyond_a_tie_is_rounded_away_from_it() {
        // 1 + 2⁻¹¹ is half way between two float16 values; a 2⁻⁵⁰th more decides.
        let tie = 1.0 + 2f64.powi(-11);
        let made = Tensor::from_slice(&[tie, tie + 2f64.powi(-50), -tie - 2f64.powi(-50)]);
        let odd = round_once(&made, TorchKind::Half).unwrap().to_kind(TorchKind::Half);
        let found: Vec<f64> = Vec::try_from(odd.to_kind(TorchKind::Double)).unwrap();
        let next = 1.0 + 2f64.powi(-10);
        assert_eq!(found, [1.0, next, -next]);
    }

    #[test]
    fn values_beyond_float32_stay_infinite() {
        assert!(round_to_odd(1e300).is_infinite());
        assert_eq!(round_to_odd(-0.25), -0.25);
    }
}
