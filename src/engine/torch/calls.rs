//! Translates between torch and this crate: dtypes, errors, lengths and threads.

use tch::{Kind as TorchKind, TchError};

use crate::error::{Error, Kind, Result};
use crate::tensor::DType;

/// torch's kind of a dtype; `None` for those that tch 0.24 has no name for (they are copied as
/// bytes and never computed with).
pub(crate) fn torch_kind(dtype: DType) -> Option<TorchKind> {
    Some(match dtype {
        DType::Float64 => TorchKind::Double,
        DType::Float32 => TorchKind::Float,
        DType::Float16 => TorchKind::Half,
        DType::BFloat16 => TorchKind::BFloat16,
        DType::Float8E4M3Fn => TorchKind::Float8e4m3fn,
        DType::Float8E5M2 => TorchKind::Float8e5m2,
        DType::Float8E4M3FnUz => TorchKind::Float8e4m3fnuz,
        DType::Float8E5M2FnUz => TorchKind::Float8e5m2fnuz,
        DType::Int64 => TorchKind::Int64,
        DType::Int32 => TorchKind::Int,
        DType::Int16 => TorchKind::Int16,
        DType::Int8 => TorchKind::Int8,
        DType::UInt8 => TorchKind::Uint8,
        DType::Bool => TorchKind::Bool,
        _ => return None,
    })
}

/// Largest finite value of a floating dtype, as float64.
pub(crate) fn largest_finite(dtype: DType) -> f64 {
    match dtype {
        DType::Float64 => f64::MAX,
        DType::Float16 => 65_504.0,
        // (2 − 2⁻⁷)·2¹²⁷
        DType::BFloat16 => 3.389_531_389_251_535_5e38,
        DType::Float8E4M3Fn => 448.0,
        DType::Float8E4M3FnUz => 240.0,
        DType::Float8E5M2 | DType::Float8E5M2FnUz => 57_344.0,
        _ => f64::from(f32::MAX),
    }
}

/// Turns a failed torch call into the crate's error: out of memory is a resource, all else a bug of
/// ours.
pub(crate) trait TorchResult<T> {
    /// `what` ends the sentence "torch could not …".
    fn or_torch(self, what: &str) -> Result<T>;
}

impl<T> TorchResult<T> for std::result::Result<T, TchError> {
    fn or_torch(self, what: &str) -> Result<T> {
        self.map_err(|error| {
            let text = error.to_string();
            let first = text.lines().next().unwrap_or_default().to_owned();
            let kind = if text.contains("out of memory") || text.contains("can't allocate") {
                Kind::Resource
            } else {
                Kind::Internal
            };
            Error::new(kind, format!("torch could not {what}")).expected("", first).caused_by(error)
        })
    }
}

/// An internal error that no torch call gave.
pub(crate) fn torch_error(what: &str) -> Error {
    Error::new(Kind::Internal, what)
}

/// A length or place as torch counts it.
pub(crate) fn to_i64(value: usize) -> Result<i64> {
    i64::try_from(value).map_err(|_| torch_error("a tensor is too large for torch"))
}

/// One intra-op thread in the calling thread: the engine's workers are the parallelism, and sums
/// must not depend on how many there are.
pub(crate) fn use_one_thread() {
    tch::set_num_threads(1);
}
