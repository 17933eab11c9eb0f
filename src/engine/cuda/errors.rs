//! The error where CUDA can't be used.

use crate::error::{Error, Kind};

/// CUDA is not there; `why` is the sentence's second half.
pub(crate) fn unavailable(why: impl std::fmt::Display) -> Error {
    Error::new(Kind::Device, format!("CUDA is not available: {why}"))
}
