//! Translates safetensors' names of element types.

use safetensors::Dtype;
use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::{Error as WordError, StrDeserializer};

use crate::tensor::DType;

/// Each dtype that both torch and safetensors have, but for `F4`, of which torch has two in an element.
const TABLE: [(Dtype, DType); 19] = [
    (Dtype::BOOL, DType::Bool),
    (Dtype::U8, DType::UInt8),
    (Dtype::I8, DType::Int8),
    (Dtype::F8_E5M2, DType::Float8E5M2),
    (Dtype::F8_E4M3, DType::Float8E4M3Fn),
    (Dtype::F8_E8M0, DType::Float8E8M0Fnu),
    (Dtype::F8_E4M3FNUZ, DType::Float8E4M3FnUz),
    (Dtype::F8_E5M2FNUZ, DType::Float8E5M2FnUz),
    (Dtype::I16, DType::Int16),
    (Dtype::U16, DType::UInt16),
    (Dtype::F16, DType::Float16),
    (Dtype::BF16, DType::BFloat16),
    (Dtype::I32, DType::Int32),
    (Dtype::U32, DType::UInt32),
    (Dtype::F32, DType::Float32),
    (Dtype::C64, DType::Complex64),
    (Dtype::F64, DType::Float64),
    (Dtype::I64, DType::Int64),
    (Dtype::U64, DType::UInt64),
];

/// torch's dtype of a header's word. `None` where there is no such word, or where an element is less
/// than a byte (`F4`, `F6_E2M3`, `F6_E3M2`).
pub(super) fn from_word(word: &str) -> Option<DType> {
    let word: StrDeserializer<'_, WordError> = word.into_deserializer();
    let dtype = Dtype::deserialize(word).ok()?;
    TABLE.iter().find(|row| row.0 == dtype).map(|row| row.1)
}

/// The library's dtype of torch's; `None` where it has none.
pub(super) fn to_dtype(dtype: DType) -> Option<Dtype> {
    TABLE.iter().find(|row| row.1 == dtype).map(|row| row.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_the_library_and_sizes_agree() {
        for (theirs, ours) in TABLE {
            assert_eq!(from_word(&theirs.to_string()), Some(ours));
            assert_eq!(to_dtype(ours), Some(theirs));
            assert_eq!(theirs.bitsize() as u64, 8 * ours.size_bytes(), "{theirs}");
        }
        for word in ["F4", "F6_E2M3", "F6_E3M2", "f32", "float32", "F7", ""] {
            assert_eq!(from_word(word), None, "{word}");
        }
    }
}
