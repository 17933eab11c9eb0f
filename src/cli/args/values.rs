//! Values on the command line, as words and as what they mean.

use clap::builder::{PossibleValuesParser, TypedValueParser};

use crate::format::WeightFormat;
use crate::tensor::DType;

/// Which merge runs alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Index {
    /// The one at this position.
    At(usize),
    /// The one that the scheduler's environment names.
    Auto,
}

/// The dtype of `--dtype`, `None` for `keep`. An alias, since clap would take a plain `Option` for an
/// argument that may be left out.
pub(crate) type ChildDType = Option<DType>;

/// Parses `--dtype`.
pub(super) fn dtype_parser() -> impl TypedValueParser<Value = ChildDType> {
    let words = [DType::Float16, DType::BFloat16, DType::Float32].map(DType::name);
    PossibleValuesParser::new(std::iter::once("keep").chain(words))
        .map(|word| DType::from_name(&word))
}

/// `None`, written as `auto`, is the primary's; see [`ChildDType`].
pub(crate) type ChildFormat = Option<WeightFormat>;

/// The words of `--format`.
pub(super) fn format_parser() -> impl TypedValueParser<Value = ChildFormat> {
    let words = WeightFormat::ALL.map(WeightFormat::name);
    PossibleValuesParser::new(std::iter::once("auto").chain(words))
        .map(|word| WeightFormat::ALL.into_iter().find(|format| format.name() == word))
}

pub(super) fn parse_size(text: &str) -> Result<u64, String> {
    crate::format::parse_size(text).map_err(|error| error.to_string())
}

/// Enough for pieces that were halved four times, whatever the dtypes.
const LEAST_DEVICE_MEMORY: u64 = 16 << 20;

pub(super) fn parse_device_memory(text: &str) -> Result<u64, String> {
    match parse_size(text)? {
        bytes if bytes < LEAST_DEVICE_MEMORY => {
            Err(format!("at least 16MiB are needed on a device, got `{text}`"))
        }
        bytes => Ok(bytes),
    }
}

pub(super) fn parse_index(text: &str) -> Result<Index, String> {
    match text {
        "auto" => Ok(Index::Auto),
        _ => text.parse().map(Index::At).map_err(|_| "expected a whole number or auto".to_owned()),
    }
}
