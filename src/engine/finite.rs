//! Whether all elements are finite, told from their bits: NaN and Inf are those whose exponent is all
//! ones. Faster than any arithmetic, and nothing overflows.

use crate::tensor::DType;

/// Whether little-endian elements of `dtype` are all finite; `None` for a dtype that is not of the
/// IEEE kind (float8). Bytes behind the last whole element are not looked at.
pub(crate) fn all_finite(bytes: &[u8], dtype: DType) -> Option<bool> {
    // Adding the lowest bit of the exponent to the exponent alone reaches the sign's place only from
    // all ones. The sums are collected by OR, so the loop has no branch and is done many at a time.
    macro_rules! scan {
        ($word:ty, $exponent:expr, $lowest:expr) => {{
            let words = bytes.as_chunks::<{ size_of::<$word>() }>().0.iter();
            let all = words.fold(0, |all, word| {
                all | (<$word>::from_le_bytes(*word) & $exponent).wrapping_add($lowest)
            });
            Some(all >> (<$word>::BITS - 1) == 0)
        }};
    }
    match dtype {
        DType::Float16 => scan!(u16, 0x7c00, 0x0400),
        DType::BFloat16 => scan!(u16, 0x7f80, 0x0080),
        DType::Float32 => scan!(u32, 0x7f80_0000, 0x0080_0000),
        DType::Float64 => scan!(u64, 0x7ff0_0000_0000_0000, 0x0010_0000_0000_0000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_16_bit_pattern_is_judged_as_torch_does() {
        for (dtype, kind) in
            [(DType::Float16, tch::Kind::Half), (DType::BFloat16, tch::Kind::BFloat16)]
        {
            let bytes: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
            let torch = tch::Tensor::from_data_size(&bytes, &[1 << 16], kind).isfinite();
            for (pattern, finite) in Vec::<bool>::try_from(torch).unwrap().into_iter().enumerate() {
                let own = all_finite(&bytes[2 * pattern..2 * pattern + 2], dtype);
                assert_eq!(own, Some(finite), "{pattern:#06x} of {dtype}");
            }
        }
    }

    #[test]
    fn one_element_among_many_is_seen_wherever_it_is() {
        let largest = [f32::MAX, f32::MIN, f32::MIN_POSITIVE, 1e-45, -0.0];
        for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for place in 0..37 {
                let mut values: Vec<f32> = largest.iter().cycle().take(37).copied().collect();
                let bytes = |values: &[f32]| -> Vec<u8> {
                    values.iter().flat_map(|value| value.to_le_bytes()).collect()
                };
                assert_eq!(all_finite(&bytes(&values), DType::Float32), Some(true));
                values[place] = bad;
                assert_eq!(all_finite(&bytes(&values), DType::Float32), Some(false), "{place}");
                let wide: Vec<u8> =
                    values.iter().flat_map(|value| f64::from(*value).to_le_bytes()).collect();
                assert_eq!(all_finite(&wide, DType::Float64), Some(false), "{place}");
            }
        }
        let wide: Vec<u8> = [f64::MAX, f64::MIN].iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(all_finite(&wide, DType::Float64), Some(true));
        assert_eq!(all_finite(&wide, DType::Float8E4M3Fn), None);
        assert_eq!(all_finite(&[0xff], DType::Float16), Some(true));
    }
}
