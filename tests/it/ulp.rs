//! Rounding, and distances in units in the last place.

use tch::{Kind, Tensor};

use crate::support::{Loaded, rows};

/// How far two tensors are apart: the largest distance of two elements in units in the last place,
/// and how many elements differ at all. Both zeros are one.
pub(crate) fn distance(a: &Loaded, b: &Loaded) -> (u64, usize) {
    assert_eq!((a.kind, &a.shape), (b.kind, &b.shape));
    let (a, b) = (ordered(a), ordered(b));
    let apart = a.iter().zip(&b).map(|(a, b)| a.abs_diff(*b));
    (apart.clone().max().unwrap_or(0), apart.filter(|ulp| *ulp > 0).count())
}

/// Holds a merged matrix or vector to `expected`, which was worked out in float64: at most one unit
/// in the last place apart. Rows from `own_rows` on were rounded when they were made and again when
/// they were merged, so there it is a unit of the row's largest element.
#[track_caller]
pub(crate) fn assert_close(found: &Loaded, expected: &Loaded, own_rows: i64, name: &str) {
    let (kind, n_rows) = (found.kind, found.shape[0]);
    let border = own_rows.min(n_rows);
    let (furthest, _) = distance(&rows(found, 0, border), &rows(expected, 0, border));
    assert!(furthest <= 1, "{name} is {furthest} units away");
    for row in border..n_rows {
        let [found, expected] = [found, expected].map(|matrix| rows(matrix, row, row + 1).values());
        let largest = expected.iter().fold(0.0, |largest: f64, value| largest.max(value.abs()));
        let apart = found.iter().zip(&expected).map(|(x, y)| (x - y).abs()).fold(0.0, f64::max);
        assert!(apart <= unit(kind, largest), "{name}: row {row} is {apart} away");
    }
}

/// How far a float32 tensor that was computed in float32 is from the truth, in units in the last
/// place of the larger parent's element: where the parents' elements cancel, the child's own unit is
/// smaller than the error of its terms. Each term is rounded twice (factor, product), their sum once.
pub(crate) fn distance_by_parents(found: &Loaded, expected: &Loaded, parents: [&Loaded; 2]) -> f64 {
    assert_eq!((found.kind, expected.kind), (Kind::Float, Kind::Float));
    let [a, b] = parents.map(Loaded::values);
    let units = a.iter().zip(&b).map(|(a, b)| unit(Kind::Float, a.abs().max(b.abs())));
    let apart = found.values().into_iter().zip(expected.values()).map(|(x, y)| (x - y).abs());
    apart.zip(units).map(|(apart, unit)| apart / unit).fold(0.0, f64::max)
}

/// The place of each element in the order of all values of its kind: neighbours are 1 apart.
fn ordered(tensor: &Loaded) -> Vec<i64> {
    let item = tensor.kind.elt_size_in_bytes();
    let number = |bytes: &[u8]| {
        let mut wide = [0; 8];
        wide[..item].copy_from_slice(bytes);
        i64::from_le_bytes(wide)
    };
    let sign = 1i64.checked_shl(u32::try_from(item * 8 - 1).unwrap()).unwrap();
    let elements = tensor.bytes.chunks_exact(item).map(number);
    let floating = matches!(tensor.kind, Kind::Half | Kind::BFloat16 | Kind::Float);
    elements.map(|n| if floating && n & sign != 0 { -(n & !sign) } else { n }).collect()
}

/// What [`distance_by_parents`] may be.
pub(crate) const FLOAT32_UNITS: f64 = 2.0;

/// One unit in the last place of a finite value of `kind`.
pub(crate) fn unit(kind: Kind, value: f64) -> f64 {
    let (digits, smallest) = match kind {
        Kind::Half => (10, -14),
        Kind::BFloat16 => (7, -126),
        Kind::Float => (23, -126),
        other => panic!("no unit for {other:?}"),
    };
    let exponent = if value == 0.0 { smallest } else { value.abs().log2().floor() as i32 };
    2f64.powi(exponent.max(smallest) - digits)
}

/// Values rounded to `kind`, to nearest even.
pub(crate) fn rounded(values: &[f64], shape: &[i64], kind: Kind) -> Loaded {
    Loaded::of(&Tensor::from_slice(values).to_kind(kind).reshape(shape))
}

#[test]
fn neighbours_are_one_unit_apart_also_across_zero() {
    let halves = |values: &[f64]| rounded(values, &[-1], Kind::Half);
    let tiny = 2f64.powi(-24);
    assert_eq!(distance(&halves(&[1.0, -tiny]), &halves(&[1.000_976_562_5, tiny])), (2, 2));
    assert_eq!(distance(&halves(&[0.0]), &halves(&[-0.0])), (0, 0));
    assert!((unit(Kind::Half, 1.5) - 2f64.powi(-10)).abs() < 1e-12);
}
