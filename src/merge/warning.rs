//! `Warning`: every warning of a merge. The plan and the engine collect them, the command line
//! prints them.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::tensor::{DType, counted, escape};

/// One warning. Each says what was done.
#[derive(Clone, Debug, PartialEq)]
pub enum Warning {
    /// A parent without config.json.
    NoConfig {
        /// `primary` or `secondary`.
        parent: &'static str,
    },
    /// The configs say different things of the same shapes; the child has the primary's config.
    Configs {
        /// The key.
        key: String,
        /// The primary's value in words.
        primary: String,
        /// The secondary's.
        secondary: String,
        /// Whether only `--force-config` let it pass.
        forced: bool,
    },
    /// How names that are not equal were matched.
    Matched(String),
    /// Known buffers whose dtypes or shapes differ; the child has the primary's.
    Buffers {
        /// How many.
        count: usize,
        /// The first one's name.
        name: String,
        /// Its dtype and shape in the primary.
        primary: (DType, Vec<u64>),
        /// The same in the secondary.
        secondary: (DType, Vec<u64>),
    },
    /// Known buffers whose values differ; the child has the primary's.
    BuffersDiffer {
        /// Their names.
        names: Vec<String>,
    },
    /// Tensors that only the primary has; the child has the primary's.
    OnlyPrimary {
        /// Their names.
        names: Vec<String>,
    },
    /// Tensors that only the secondary has.
    OnlySecondary {
        /// Their names.
        names: Vec<String>,
        /// Whether the child has them (`--missing union`).
        taken: bool,
    },
    /// Pairs of different floating dtypes.
    DTypes {
        /// How many pairs.
        count: usize,
        /// The first one's name.
        name: String,
        /// dtype in the primary, which the child keeps unless told otherwise.
        primary: DType,
        /// dtype in the secondary.
        secondary: DType,
    },
    /// Names tied in the primary and not in the secondary, where that was forced.
    Untied {
        /// The secondary's tensor that is merged.
        first: String,
        /// The one whose own values are not used.
        other: String,
    },
    /// Names of one tensor of which safetensors get a copy each.
    Copies {
        /// The names.
        names: Vec<String>,
    },
    /// Tensors of the primary that are one in the secondary.
    TiedInSecondary {
        /// That one.
        one: String,
        /// Names in the child.
        names: Vec<String>,
    },
    /// A head of other values than the embedding that config.json ties it to.
    HeadDiffers {
        /// `primary` or `secondary`.
        parent: &'static str,
        /// The head.
        head: String,
        /// The embedding.
        embedding: String,
    },
    /// An extension mode needs the longer parent's tensor, which it lacks.
    ExtendAlone {
        /// The tensor.
        name: String,
    },
    /// Chat templates that differ.
    ChatTemplates,
    /// config.json has no vocab_size to set.
    NoVocabSize {
        /// The child's rows.
        rows: u64,
    },
    /// A config that needs code files which were not copied.
    CustomCode,
    /// Integer or boolean tensors that differ; the primary's were taken.
    IntegersDiffer {
        /// The tensor.
        name: String,
    },
    /// Parents that point in opposite directions: a line through zero.
    Opposite {
        /// The tensor.
        name: String,
        /// cos θ.
        cos_theta: f64,
    },
    /// NaN or Inf that went into the child because it was allowed.
    NonFinite {
        /// The tensor.
        name: String,
        /// Where: `primary`, `secondary` or `child`.
        place: &'static str,
        /// How many elements.
        count: u64,
    },
    /// A device's memory was too full for these tensors, even in the smallest pieces.
    DeviceMemory {
        /// The tensors.
        names: Vec<String>,
        /// The device.
        device: String,
    },
    /// Files without CRCs: their bytes could not be checked.
    Unverified {
        /// How many storages.
        storages: usize,
        /// The file's name.
        file: String,
    },
    /// Tensors outside the layers to which a list of t applies.
    OutsideLayers {
        /// Their names.
        names: Vec<String>,
    },
    /// A filter of t that fits no tensor.
    FilterFitsNone {
        /// The filter.
        filter: String,
    },
    /// A name whose filter says another t than that of the tensor that it shows.
    TiedT {
        /// The name.
        name: String,
        /// The tensor's first name, which decides.
        first: String,
    },
    /// Something a parent's files say of themselves.
    Note(String),
}

fn list(names: &[String]) -> String {
    const SHOWN: usize = 5;
    let mut text = names.iter().take(SHOWN).map(|name| escape(name)).collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN {
        text.push_str(&format!(" and {} more", names.len() - SHOWN));
    }
    text
}

fn is_or_are(count: usize) -> &'static str {
    if count == 1 { "is" } else { "are" }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Warning::NoConfig { parent: "primary" } => {
                f.write_str("the primary has no config.json, so the child has none; copy one into it before loading it")
            }
            Warning::NoConfig { parent } => {
                write!(f, "the {parent} has no config.json; its architecture was not compared")
            }
            Warning::Configs { key, primary, secondary, forced } => write!(
                f,
                "{} is {} in the primary's config and {} in the secondary's; {}",
                escape(key),
                escape(primary),
                escape(secondary),
                match forced {
                    true => "merged all the same (--force-config)",
                    false => "the child has the primary's",
                }
            ),
            Warning::Matched(text) => f.write_str(text),
            Warning::Buffers { count, name, primary: (dtype, shape), secondary } => write!(
                f,
                "{count} {} of another dtype or shape in the secondary, `{}` for one: {dtype} {shape:?} in the primary, {} {:?} in the secondary; the child has the primary's",
                if *count == 1 { "buffer is" } else { "buffers are" },
                escape(name),
                secondary.0,
                secondary.1
            ),
            Warning::BuffersDiffer { names } => write!(
                f,
                "{} between the parents, and the child has the primary's: {}",
                if names.len() == 1 { "1 buffer differs".to_owned() } else { format!("{} buffers differ", names.len()) },
                list(names)
            ),
            Warning::OnlyPrimary { names } => write!(
                f,
                "{} only in the primary {} copied from it: {}",
                counted(names.len() as u64, "tensor"),
                is_or_are(names.len()),
                list(names)
            ),
            Warning::OnlySecondary { names, taken: true } => write!(
                f,
                "{} only in the secondary {} copied from it: {}",
                counted(names.len() as u64, "tensor"),
                is_or_are(names.len()),
                list(names)
            ),
            Warning::OnlySecondary { names, taken: false } => write!(
                f,
                "{} only in the secondary {} left out: {}; give --missing union to keep {}",
                counted(names.len() as u64, "tensor"),
                is_or_are(names.len()),
                list(names),
                if names.len() == 1 { "it" } else { "them" }
            ),
            Warning::DTypes { count, name, primary, secondary } => write!(
                f,
                "{} in dtype, `{}` for one: {primary} in the primary, {secondary} in the secondary; computed in float32 or better",
                if *count == 1 { "1 pair differs".to_owned() } else { format!("{count} pairs differ") },
                escape(name)
            ),
            Warning::Untied { first, other } => write!(
                f,
                "`{}` and `{}` are two tensors in the secondary and one in the primary; the child has one (--force-config), and the secondary's `{}` is not used",
                escape(first),
                escape(other),
                escape(other)
            ),
            Warning::Copies { names } => write!(
                f,
                "safetensors have no tied tensors, and nothing in config.json says which of these names \
                 is made again when the model is loaded; the child has a copy for each: {}",
                names.iter().map(|name| format!("`{}`", escape(name))).collect::<Vec<_>>().join(", ")
            ),
            Warning::TiedInSecondary { one, names } => write!(
                f,
                "{} are tensors of their own in the primary and one in the secondary; each is merged with the secondary's `{}`",
                list(names),
                escape(one)
            ),
            Warning::HeadDiffers { parent, head, embedding } => write!(
                f,
                "`{}` of the {parent} has other values than `{}`, though its config.json ties them; taken as it is, but programs that follow config.json read the embedding in its place",
                escape(head),
                escape(embedding)
            ),
            Warning::ExtendAlone { name } => write!(
                f,
                "`{}` is only in the shorter parent, so its new rows are a gradient between its own edge rows",
                escape(name)
            ),
            Warning::ChatTemplates => f.write_str(
                "the chat templates of the parents differ; the child has that of its tokenizer",
            ),
            Warning::NoVocabSize { rows } => write!(
                f,
                "config.json has no vocab_size to set; the child has {}",
                counted(*rows, "vocabulary row")
            ),
            Warning::CustomCode => f.write_str(
                "config.json names custom code (auto_map), which was not copied; give --copy-code if you trust it",
            ),
            Warning::IntegersDiffer { name } => write!(
                f,
                "`{}` is not floating and differs between the parents; the primary's was copied",
                escape(name)
            ),
            Warning::Opposite { name, cos_theta } => write!(
                f,
                "`{}` points in opposite directions in the parents (cos θ = {cos_theta:.4}); merged along a line, it shrinks towards zero",
                escape(name)
            ),
            Warning::NonFinite { name, place, count } => {
                let were = if *count == 1 { "was" } else { "were" };
                write!(f, "`{}`: {count} NaN or Inf in the {place} {were} let through", escape(name))
            }
            Warning::DeviceMemory { names, device } => write!(
                f,
                "{device} ran out of memory, so {} {} computed on the CPU: {}",
                counted(names.len() as u64, "tensor"),
                if names.len() == 1 { "was" } else { "were" },
                list(names)
            ),
            Warning::Unverified { storages, file } => write!(
                f,
                "{} of `{}` without a CRC-32, so the bytes could not be checked",
                counted(*storages as u64, "storage"),
                escape(file)
            ),
            Warning::OutsideLayers { names } => write!(
                f,
                "{} outside the layers {} the first value of its list of t: {}",
                counted(names.len() as u64, "tensor"),
                if names.len() == 1 { "gets" } else { "get" },
                list(names)
            ),
            Warning::FilterFitsNone { filter } => {
                write!(f, "the filter `{}` fits no tensor", escape(filter))
            }
            Warning::TiedT { name, first } => write!(
                f,
                "`{}` is one tensor with `{}` and has its t, whatever the filters say of the former",
                escape(name),
                escape(first)
            ),
            Warning::Note(text) => f.write_str(text),
        }
    }
}

impl Serialize for Warning {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_tensor_is_told_of_in_the_singular() {
        let names = |count: usize| (0..count).map(|name| format!("w{name}")).collect::<Vec<_>>();
        let said = |count| {
            let left = Warning::OnlySecondary { names: names(count), taken: false };
            [Warning::OnlyPrimary { names: names(count) }, left].map(|warning| warning.to_string())
        };
        assert_eq!(
            said(1),
            [
                "1 tensor only in the primary is copied from it: w0",
                "1 tensor only in the secondary is left out: w0; give --missing union to keep it",
            ]
        );
        assert_eq!(
            said(2),
            [
                "2 tensors only in the primary are copied from it: w0, w1",
                "2 tensors only in the secondary are left out: w0, w1; give --missing union to \
                 keep them",
            ]
        );
    }

    #[test]
    fn five_names_are_shown_and_the_others_counted() {
        for (count, ends) in
            [(5, "w0, w1, w2, w3, w4"), (6, "w3, w4 and 1 more"), (8, "w3, w4 and 3 more")]
        {
            let names: Vec<String> = (0..count).map(|name| format!("w{name}")).collect();
            let warning = Warning::BuffersDiffer { names };
            let said = warning.to_string();
            assert!(said.ends_with(ends), "{said}");
            assert_eq!(serde_json::to_value(&warning).unwrap(), said);
        }
    }
}
