//! The options that determine a child's contents, with their defaults. Clap shows the first line of
//! each variant's doc as help.

use serde::{Deserialize, Serialize};

use crate::checkpoint::TokenizerMode;
use crate::format::WeightFormat;
use crate::merge::recipe::schedule::Child;
use crate::merge::recipe::slices::Slice;
use crate::tensor::DType;

/// How two tensors become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "torch", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// Along the arc between the two tensors.
    ///
    /// Spherical linear interpolation, with lerp for nearly parallel, opposite or zero tensors.
    Slerp,
    /// (1 - t)·a + t·b for every tensor.
    Linear,
}

/// How the shorter vocabulary is extended: the value of row n−1+i, i = 1..k, of an n-row tensor.
/// Edge rows are the outermost ones that are not bos, eos or pad: see [`EdgeRows`](crate::merge::EdgeRows).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "torch", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum Extend {
    /// Evenly spaced between the short tensor's last and first row that is not bos, eos or pad.
    ///
    /// (1 − i/(k+1))·last + i/(k+1)·first, of its edge rows.
    Gradient,
    /// Evenly spaced between the short tensor's last such row and the longer one's.
    ///
    /// (1 − i/(k+1))·last + i/(k+1)·longer's last, of their edge rows.
    Bridge,
    /// The longer parent's own rows.
    Inherit,
    /// The mean of the short tensor's rows.
    Mean,
    /// Zeros.
    Zero,
    /// Refuse.
    Error,
}

impl Extend {
    /// The word of the command line.
    pub fn name(self) -> &'static str {
        match self {
            Extend::Gradient => "gradient",
            Extend::Bridge => "bridge",
            Extend::Inherit => "inherit",
            Extend::Mean => "mean",
            Extend::Zero => "zero",
            Extend::Error => "error",
        }
    }
}

/// What becomes of a tensor that one parent lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "torch", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum Missing {
    /// The child has the primary's tensors.
    Primary,
    /// The child has the tensors of both.
    Union,
    /// Refuse.
    Error,
}

/// What becomes of vocabularies that give one row to different words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "torch", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum VocabMode {
    /// Refuse them.
    #[default]
    Check,
    /// Merge row by row, whatever the words.
    Rows,
    /// Merge by word; the child has the words of both.
    Union,
    /// Merge by word; the child has the primary's words.
    Primary,
}

impl VocabMode {
    /// The ways on from vocabularies that clash, each with what it does.
    pub const WAYS_ON: [(VocabMode, &str); 3] = [
        (VocabMode::Union, "by word; the child has the words of both"),
        (VocabMode::Primary, "by word; the child has the primary's words"),
        (VocabMode::Rows, "row by row, whatever the word (reserved rows with new words)"),
    ];

    /// Whether rows are merged by their words.
    pub fn is_by_word(self) -> bool {
        matches!(self, VocabMode::Union | VocabMode::Primary)
    }

    /// The word of the command line.
    pub fn name(self) -> &'static str {
        match self {
            VocabMode::Check => "check",
            VocabMode::Rows => "rows",
            VocabMode::Union => "union",
            VocabMode::Primary => "primary",
        }
    }
}

/// Everything that decides what the child is. How fast it is made is the engine's settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MergeOptions {
    /// The children, at least one.
    pub children: Vec<Child>,
    /// Which layers the child has, where they are not all: the parents were [cut](crate::merge::cut).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub slices: Vec<Slice>,
    /// Whether the filters were written for a tool that is silent about one that fits no tensor.
    pub foreign_filters: bool,
    /// slerp or linear.
    pub method: Method,
    /// dtype of the child's floating tensors; `None` keeps each tensor's dtype in the primary.
    #[serde(serialize_with = "dtype_or_keep", deserialize_with = "dtype_from_word")]
    pub dtype: Option<DType>,
    /// Format of the child's weight files; `None` is the primary's.
    #[serde(serialize_with = "format_or_auto", deserialize_with = "format_from_word")]
    pub format: Option<WeightFormat>,
    /// Largest shard in bytes, by HuggingFace's rule.
    pub max_shard_bytes: u64,
    /// Extension of the shorter vocabulary.
    pub extend: Extend,
    /// What becomes of vocabularies that give one row to different words.
    pub vocab: VocabMode,
    /// Tensors that one parent lacks. `None`: as [`Missing::Primary`], but refused where they are
    /// more than a tenth of the model.
    pub missing: Option<Missing>,
    /// Where the tokenizer files come from.
    pub tokenizer: TokenizerMode,
    /// Merge though a parent holds NaN or Inf, or the child overflows.
    pub allow_nonfinite: bool,
    /// Merge though the configs give the same shapes another meaning, or one parent's output head is
    /// the embedding and the other's is not.
    pub force_config: bool,
    /// Copy the primary's custom `*.py` code into the child.
    pub copy_code: bool,
}

impl Default for MergeOptions {
    /// The defaults of the command line; 5 GB is transformers 4.57.3's default shard size.
    fn default() -> MergeOptions {
        MergeOptions {
            children: vec![Child::at(0.5)],
            slices: Vec::new(),
            foreign_filters: false,
            method: Method::Slerp,
            dtype: None,
            format: None,
            max_shard_bytes: 5_000_000_000,
            extend: Extend::Gradient,
            vocab: VocabMode::Check,
            missing: None,
            tokenizer: TokenizerMode::Auto,
            allow_nonfinite: false,
            force_config: false,
            copy_code: false,
        }
    }
}

#[expect(clippy::ref_option, reason = "serde gives a reference to the field")]
fn format_or_auto<S: serde::Serializer>(
    format: &Option<WeightFormat>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(format.map_or("auto", WeightFormat::name))
}

#[expect(clippy::ref_option, reason = "serde gives a reference to the field")]
fn dtype_or_keep<S: serde::Serializer>(
    dtype: &Option<DType>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(dtype.map_or("keep", DType::name))
}

fn format_from_word<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<WeightFormat>, D::Error> {
    let word = String::deserialize(deserializer)?;
    let known = WeightFormat::ALL.into_iter().find(|format| format.name() == word);
    match known {
        None if word != "auto" => Err(serde::de::Error::custom(format!("`{word}` is no format"))),
        known => Ok(known),
    }
}

fn dtype_from_word<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<DType>, D::Error> {
    let word = String::deserialize(deserializer)?;
    if word == "keep" {
        return Ok(None);
    }
    DType::from_name(&word)
        .map(Some)
        .ok_or_else(|| serde::de::Error::custom(format!("`{word}` is no dtype")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_file_are_those_of_the_command_line() {
        for (extend, word) in [
            (Extend::Gradient, "gradient"),
            (Extend::Bridge, "bridge"),
            (Extend::Inherit, "inherit"),
            (Extend::Mean, "mean"),
            (Extend::Zero, "zero"),
            (Extend::Error, "error"),
        ] {
            assert_eq!(extend.name(), word);
            assert_eq!(serde_json::to_value(extend).unwrap(), word);
        }
    }

    #[test]
    fn a_dtype_is_a_word_and_keep_is_none() {
        for (dtype, word) in
            [(None, "keep"), (Some(DType::Float16), "float16"), (Some(DType::BFloat16), "bfloat16")]
        {
            let options = MergeOptions { dtype, ..MergeOptions::default() };
            let mut written = serde_json::to_value(&options).unwrap();
            assert_eq!(written["dtype"], word);
            assert_eq!(serde_json::from_value::<MergeOptions>(written.clone()).unwrap(), options);
            written["dtype"] = "float17".into();
            let error = serde_json::from_value::<MergeOptions>(written).unwrap_err();
            assert!(error.to_string().contains("`float17` is no dtype"), "{error}");
        }
    }
}
