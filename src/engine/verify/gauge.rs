//! Measures how large elements are, in the pass that reads them: the largest of all, by their bits,
//! and the sum of squares of a sample, since a check must not be slower than the disk.

use crate::tensor::DType;

/// Consecutive elements that are squared.
const RUN: usize = 64;

/// One run in this many is squared. A prime that is no factor of a matrix's usual width.
const STRIDE: usize = 31;

/// Bytes of a tensor from which on only some runs are squared.
pub(crate) const SPARSE_BYTES: u64 = 1 << 20;

/// The size of some elements.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Tally {
    /// The largest magnitude: infinity or NaN where there is one, zero only where all are zero. Below 2
    /// it may be less than the largest; see [`gauge`].
    pub(crate) largest: f64,
    /// Sum of the squares of those that were squared.
    pub(crate) squares: f64,
    /// How many were squared.
    pub(crate) squared: u64,
}

impl Tally {
    /// Both together.
    pub(crate) fn and(self, other: Tally) -> Tally {
        Tally {
            largest: if other.largest > self.largest || other.largest.is_nan() {
                other.largest
            } else {
                self.largest
            },
            squares: self.squares + other.squares,
            squared: self.squared.saturating_add(other.squared),
        }
    }

    /// Whether all elements are finite.
    pub(crate) fn is_finite(&self) -> bool {
        self.largest.is_finite()
    }

    /// The root mean square of `numel` elements: that of those squared, and no less than the largest
    /// alone makes it.
    pub(crate) fn root_mean_square(&self, numel: u64) -> f64 {
        let sampled = (self.squares / self.squared.max(1) as f64).sqrt();
        sampled.max(self.largest / (numel.max(1) as f64).sqrt())
    }
}

/// The size of little-endian elements; `None` for a dtype that is not of the IEEE kind (float8). Bytes
/// after the last whole element are ignored. `sparse`: square few runs, and of float32 and float64
/// don't look for the largest where all are below 2.
pub(crate) fn gauge(bytes: &[u8], dtype: DType, sparse: bool) -> Option<Tally> {
    let stride = if sparse { STRIDE } else { 1 };
    // Without the sign bit floats order as integers do, Inf and NaN last. The loops have one integer
    // operation or two, so that compilers vectorise them.
    macro_rules! measure {
        ($unsigned:ty, $signed:ty, $value:expr, $look_twice:expr) => {{
            const MAGNITUDE: $unsigned = <$unsigned>::MAX >> 1;
            let words = bytes.as_chunks::<{ size_of::<$unsigned>() }>().0;
            let magnitude =
                |word: &[u8; size_of::<$unsigned>()]| <$unsigned>::from_le_bytes(*word) & MAGNITUDE;
            let seldom: Option<$unsigned> = if $look_twice && sparse {
                let all = words.iter().fold(0, |all, word| all | magnitude(word));
                // The exponent's highest bit stands for 2 and more.
                (all & (MAGNITUDE ^ (MAGNITUDE >> 1)) == 0).then_some(all.min(1))
            } else {
                None
            };
            let largest = seldom.unwrap_or_else(|| {
                let most = |most: $signed, word| most.max(magnitude(word).cast_signed());
                words.iter().fold(0, most).cast_unsigned()
            });
            let (squares, squared) = squares(words, |word| $value(magnitude(word)), stride);
            Some(Tally { largest: $value(largest), squares, squared })
        }};
    }
    let float = |bits: u32| f64::from(f32::from_bits(bits));
    match dtype {
        DType::Float16 => measure!(u16, i16, half, false),
        DType::BFloat16 => measure!(u16, i16, |bits| float(u32::from(bits) << 16), false),
        DType::Float32 => measure!(u32, i32, float, true),
        DType::Float64 => measure!(u64, i64, f64::from_bits, true),
        _ => None,
    }
}

/// The value of a positive half-precision number.
fn half(bits: u16) -> f64 {
    // The exponent's bias is 15 in half and 127 in single precision.
    let shifted = f32::from_bits(u32::from(bits) << 13) * f32::from_bits((127 + 112) << 23);
    // An exponent of all ones means Inf or NaN here, but a large number once shifted.
    if bits >= 0x7c00 { f64::INFINITY } else { f64::from(shifted) }
}

/// Sum of squares and number of the elements in every `stride`th run.
fn squares<W>(words: &[W], value: impl Fn(&W) -> f64, stride: usize) -> (f64, u64) {
    const LANES: usize = 8;
    let (mut sum, mut count) = (0.0, 0u64);
    for run in words.chunks(RUN).step_by(stride) {
        let mut lanes = [0.0; LANES];
        let (whole, rest) = run.as_chunks::<LANES>();
        for words in whole.iter().map(<[W; LANES]>::as_slice).chain([rest]) {
            for (lane, word) in lanes.iter_mut().zip(words) {
                let value = value(word);
                *lane += value * value;
            }
        }
        sum += lanes.iter().sum::<f64>();
        count += run.len() as u64;
    }
    (sum, count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_16_bit_pattern_has_the_value_that_torch_gives_it() {
        for (dtype, kind) in
            [(DType::Float16, tch::Kind::Half), (DType::BFloat16, tch::Kind::BFloat16)]
        {
            let bytes: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
            let torch = tch::Tensor::from_data_size(&bytes, &[1 << 16], kind);
            let torch = Vec::<f64>::try_from(torch.to_kind(tch::Kind::Double).abs()).unwrap();
            for (pattern, value) in torch.into_iter().enumerate() {
                let own = gauge(&bytes[2 * pattern..2 * pattern + 2], dtype, false).unwrap();
                assert_eq!(own.is_finite(), value.is_finite(), "{pattern:#06x} of {dtype}");
                if value.is_finite() {
                    let expected = Tally { largest: value, squares: value * value, squared: 1 };
                    assert_eq!(own, expected, "{pattern:#06x} of {dtype}");
                }
            }
        }
    }

    #[test]
    fn one_element_among_many_is_seen_wherever_it_is() {
        let bytes = |values: &[f32]| -> Vec<u8> {
            values.iter().flat_map(|value| value.to_le_bytes()).collect()
        };
        for place in [0, 63, 64, 500, 1300] {
            let mut values = vec![-0.5f32; 1301];
            let small = gauge(&bytes(&values), DType::Float32, true).unwrap();
            assert!(small.largest > 0.0 && small.largest <= 0.5);
            assert_eq!(gauge(&bytes(&values), DType::Float32, false).unwrap().largest, 0.5);
            values[place] = -3.0;
            assert_eq!(gauge(&bytes(&values), DType::Float32, true).unwrap().largest, 3.0);
            values[place] = f32::NAN;
            assert!(!gauge(&bytes(&values), DType::Float32, true).unwrap().is_finite());
            values[place] = f32::NEG_INFINITY;
            let wide: Vec<u8> =
                values.iter().flat_map(|value| f64::from(*value).to_le_bytes()).collect();
            assert!(!gauge(&wide, DType::Float64, true).unwrap().is_finite());
        }
        assert_eq!(gauge(&[0; 8], DType::Float8E4M3Fn, false), None);
        assert_eq!(gauge(&[0xff], DType::Float16, false), Some(Tally::default()));
    }

    #[test]
    fn squares_are_those_worked_by_hand_and_of_one_run_in_thirty_one() {
        let values = |count: usize| -> Vec<u8> {
            (0..count).flat_map(|at| (at as f64).to_le_bytes()).collect()
        };
        let dense = gauge(&values(100), DType::Float64, false).unwrap();
        assert_eq!((dense.squares, dense.squared), (328_350.0, 100));
        // Runs of 64: of forty, the first and the 32nd, which begins at 1984.
        let sparse = gauge(&values(2560), DType::Float64, true).unwrap();
        let by_hand: f64 = (0..64).chain(1984..2048).map(|at| f64::from(at * at)).sum();
        assert_eq!((sparse.squares, sparse.squared), (by_hand, 128));
        let both = dense.and(sparse);
        assert_eq!((both.squared, both.largest), (228, 2559.0));
        assert!(!Tally { largest: f64::NAN, ..dense }.and(dense).is_finite());
        assert!(!dense.and(Tally { largest: f64::NAN, ..dense }).is_finite());
    }

    #[test]
    fn a_root_mean_square_is_at_least_what_the_largest_makes_it() {
        let tally = Tally { largest: 3.0, squares: 18.0, squared: 2 };
        assert_eq!(tally.root_mean_square(2), 3.0);
        let spike = Tally { largest: 1000.0, squares: 4.0, squared: 4 };
        assert_eq!(spike.root_mean_square(10_000), 10.0);
        assert_eq!(Tally::default().root_mean_square(0), 0.0);
    }
}
