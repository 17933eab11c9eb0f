//! `DType`: the element types, with torch's names, their sizes, and the storage classes that
//! pickles use for them.

use serde::{Serialize, Serializer};

/// The element type of a tensor, by torch's name (`float16`, `bfloat16`, ...).
///
/// These are all dtypes that `torch.save` 2.11 writes for strided tensors, but for quantised ones: their
/// values mean nothing without scales that a state dict keeps elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs, reason = "each variant is the torch dtype of the same name")]
pub enum DType {
    Float64,
    Float32,
    Float16,
    BFloat16,
    Int64,
    Int32,
    Int16,
    Int8,
    UInt8,
    Bool,
    Complex64,
    Complex128,
    Complex32,
    UInt16,
    UInt32,
    UInt64,
    Float8E4M3Fn,
    Float8E5M2,
    Float8E4M3FnUz,
    Float8E5M2FnUz,
    Float8E8M0Fnu,
    Float4E2M1FnX2,
    Bits8,
    Bits16,
    Bits1x8,
    Bits2x4,
    Bits4x2,
}

/// One row per dtype: (dtype, torch name, bytes per element, legacy storage class).
///
/// A dtype without a storage class is saved through `UntypedStorage` and `_rebuild_tensor_v3`.
const TABLE: &[(DType, &str, u64, Option<&str>)] = &[
    (DType::Float64, "float64", 8, Some("DoubleStorage")),
    (DType::Float32, "float32", 4, Some("FloatStorage")),
    (DType::Float16, "float16", 2, Some("HalfStorage")),
    (DType::BFloat16, "bfloat16", 2, Some("BFloat16Storage")),
    (DType::Int64, "int64", 8, Some("LongStorage")),
    (DType::Int32, "int32", 4, Some("IntStorage")),
    (DType::Int16, "int16", 2, Some("ShortStorage")),
    (DType::Int8, "int8", 1, Some("CharStorage")),
    (DType::UInt8, "uint8", 1, Some("ByteStorage")),
    (DType::Bool, "bool", 1, Some("BoolStorage")),
    (DType::Complex64, "complex64", 8, Some("ComplexFloatStorage")),
    (DType::Complex128, "complex128", 16, Some("ComplexDoubleStorage")),
    (DType::Complex32, "complex32", 4, None),
    (DType::UInt16, "uint16", 2, None),
    (DType::UInt32, "uint32", 4, None),
    (DType::UInt64, "uint64", 8, None),
    (DType::Float8E4M3Fn, "float8_e4m3fn", 1, None),
    (DType::Float8E5M2, "float8_e5m2", 1, None),
    (DType::Float8E4M3FnUz, "float8_e4m3fnuz", 1, None),
    (DType::Float8E5M2FnUz, "float8_e5m2fnuz", 1, None),
    (DType::Float8E8M0Fnu, "float8_e8m0fnu", 1, None),
    (DType::Float4E2M1FnX2, "float4_e2m1fn_x2", 1, None),
    (DType::Bits8, "bits8", 1, None),
    (DType::Bits16, "bits16", 2, None),
    (DType::Bits1x8, "bits1x8", 1, None),
    (DType::Bits2x4, "bits2x4", 1, None),
    (DType::Bits4x2, "bits4x2", 1, None),
];

impl DType {
    fn row(self) -> &'static (DType, &'static str, u64, Option<&'static str>) {
        // A test checks that every variant has a row; the fallback is never taken.
        TABLE.iter().find(|row| row.0 == self).unwrap_or(&TABLE[0])
    }

    /// torch's name without `torch.`, e.g. `bfloat16`.
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// Bytes per element.
    pub fn size_bytes(self) -> u64 {
        self.row().2
    }

    /// The class name in `torch` that a pickle gives to storages of this dtype, e.g. `HalfStorage`.
    /// `None` for the dtypes that are saved through `torch.storage.UntypedStorage`.
    pub fn storage_class(self) -> Option<&'static str> {
        self.row().3
    }

    /// The dtype of this name (`float16`), or `None`.
    pub fn from_name(name: &str) -> Option<DType> {
        TABLE.iter().find(|row| row.1 == name).map(|row| row.0)
    }

    /// The dtype of a storage class (`HalfStorage`), or `None`.
    pub fn from_storage_class(class: &str) -> Option<DType> {
        TABLE.iter().find(|row| row.3 == Some(class)).map(|row| row.0)
    }

    /// Real floating-point types that torch can convert to float32: what a merge interpolates.
    pub fn is_floating(self) -> bool {
        use DType::{
            BFloat16, Float8E4M3Fn, Float8E4M3FnUz, Float8E5M2, Float8E5M2FnUz, Float16, Float32,
            Float64,
        };
        matches!(
            self,
            Float64
                | Float32
                | Float16
                | BFloat16
                | Float8E4M3Fn
                | Float8E5M2
                | Float8E4M3FnUz
                | Float8E5M2FnUz
        )
    }

    /// Integers and booleans: what a merge copies from the primary.
    pub fn is_integral(self) -> bool {
        use DType::{Bool, Int8, Int16, Int32, Int64, UInt8, UInt16, UInt32, UInt64};
        matches!(self, Int64 | Int32 | Int16 | Int8 | UInt8 | Bool | UInt16 | UInt32 | UInt64)
    }

    /// Complex types, which a merge refuses.
    pub fn is_complex(self) -> bool {
        matches!(self, DType::Complex32 | DType::Complex64 | DType::Complex128)
    }

    /// Bytes of the unit that is byte-swapped in a big-endian file: half an element of complex types, a
    /// whole element of others, 1 where there is nothing to swap.
    pub fn swap_bytes(self) -> u64 {
        if self.is_complex() { self.size_bytes() / 2 } else { self.size_bytes() }
    }
}

impl std::fmt::Display for DType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for DType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_classes_lead_back_to_their_dtype() {
        for (dtype, name, size, class) in TABLE {
            assert_eq!(DType::from_name(name), Some(*dtype));
            assert_eq!(dtype.name(), *name);
            assert_eq!(dtype.size_bytes(), *size);
            if let Some(class) = class {
                assert_eq!(DType::from_storage_class(class), Some(*dtype));
            }
        }
    }

    #[test]
    fn the_last_variant_has_a_row_so_the_table_is_complete() {
        assert_eq!(TABLE.len(), DType::Bits4x2 as usize + 1);
        for (position, row) in TABLE.iter().enumerate() {
            assert_eq!(row.0 as usize, position, "{} is out of place", row.1);
        }
    }
}
