//! Parses the header of a safetensors file, every entry once, before anything in it is trusted.
//!
//! The library reads a header only together with all data, and takes the last of two entries of one
//! name; so its words are taken from it, and the object is walked here.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::format::error::{FormatError, Rule};
use crate::format::read_at::ReadAt;
use crate::format::safetensors::dtypes::from_word;
use crate::tensor::{DType, escape};

/// Longest header that is read, in bytes: the library's own limit.
pub(crate) const MAX_HEADER_BYTES: u64 = 100_000_000;

/// Most entries of a header, as of a zip archive: models have some thousand tensors in a file.
pub(super) const MAX_ENTRIES: usize = 1 << 17;

/// Bytes of the length before the header.
pub(crate) const LENGTH_BYTES: u64 = 8;

/// Most dimensions of a tensor, as in torch.
const MAX_RANK: usize = 64;

/// The entry that is no tensor.
pub(super) const METADATA: &str = "__metadata__";

const DOWNLOAD: &str = "download the file again";

/// What a header says of one tensor.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) dtype: DType,
    pub(super) shape: Vec<u64>,
    /// First byte, counted from the end of the header, and the one behind the last.
    pub(super) begin: u64,
    pub(super) end: u64,
}

/// A header: its entries as they stand in it, and where the data begins.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) entries: Vec<Entry>,
    pub(super) data_offset: u64,
}

/// How an entry is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written<'h> {
    #[serde(borrow)]
    dtype: Cow<'h, str>,
    shape: Shape,
    data_offsets: (u64, u64),
}

/// Reads the header of a file. Memory is twice its length, and some hundred bytes for each entry.
///
/// # Errors
/// [`Rule::Truncated`] where the file ends before the header does, [`Rule::SafetensorsHeader`] and
/// [`Rule::TensorName`] for what is wrong inside it.
pub(super) fn read(source: &dyn ReadAt) -> Result<Header, FormatError> {
    let failed = |error| FormatError::read("safetensors header", 0, error);
    let mut length = [0; 8];
    source.read_exact_at(0, &mut length).map_err(failed)?;
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER_BYTES {
        let expected = format!("a length of at most {MAX_HEADER_BYTES} bytes");
        return Err(wrong(expected, length.to_string()).hint(DOWNLOAD));
    }
    let data_offset = LENGTH_BYTES + length;
    if data_offset > source.len() {
        let (expected, found) = (format!("{data_offset} bytes"), source.len().to_string());
        return Err(
            FormatError::new(Rule::Truncated, "safetensors header", expected, found).hint(DOWNLOAD)
        );
    }
    // At most MAX_HEADER_BYTES, and no more than the file has.
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    source.read_exact_at(LENGTH_BYTES, &mut bytes).map_err(failed)?;
    let text = std::str::from_utf8(&bytes).map_err(|error| {
        let at = LENGTH_BYTES.saturating_add(error.valid_up_to() as u64);
        wrong("UTF-8", "another byte").at(at)
    })?;
    let Pairs(pairs) = serde_json::from_str(text)
        .map_err(|error| wrong("an object of JSON objects", error.to_string()))?;
    let mut seen = HashSet::with_capacity(pairs.len());
    if let Some((twice, _)) = pairs.iter().find(|(name, _)| !seen.insert(name.as_str())) {
        let found = format!("`{}` twice", escape(twice));
        return Err(name_error("every name once", found));
    }
    drop(seen);
    let mut entries = Vec::with_capacity(pairs.len());
    for (name, value) in pairs {
        if name == METADATA {
            check_metadata(value.get())?;
        } else {
            entries.push(entry(name, value.get())?);
        }
    }
    Ok(Header { entries, data_offset })
}

fn entry(name: String, text: &str) -> Result<Entry, FormatError> {
    if !is_name(&name) {
        let found = format!("`{}`", escape(&name));
        return Err(name_error("a name of printable characters", found));
    }
    // serde would take the fields of an array in their order.
    if text.starts_with('[') {
        return Err(wrong("dtype, shape and data_offsets", "an array").tensor(&name));
    }
    let written: Written<'_> = serde_json::from_str(text)
        .map_err(|error| wrong("dtype, shape and data_offsets", error.to_string()).tensor(&name))?;
    let Some(dtype) = from_word(&written.dtype) else {
        let found = format!("`{}`", escape(&written.dtype));
        let expected = "a dtype of whole bytes that torch has, as `F16` or `BF16`";
        return Err(wrong(expected, found).tensor(&name));
    };
    let (begin, end) = written.data_offsets;
    Ok(Entry { name, dtype, shape: written.shape.0, begin, end })
}

/// Whether a tensor may be called so. Control characters would be taken for something else wherever the
/// name is shown.
pub(super) fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.chars().any(char::is_control)
}

/// The metadata says nothing that we go by, but where they are no strings the header is not understood.
fn check_metadata(text: &str) -> Result<(), FormatError> {
    let Strings = serde_json::from_str(text).map_err(|error| {
        wrong(format!("`{METADATA}` as an object of strings"), error.to_string())
    })?;
    Ok(())
}

fn wrong(expected: impl Into<String>, found: impl Into<String>) -> FormatError {
    FormatError::new(Rule::SafetensorsHeader, "safetensors header", expected, found)
}

fn name_error(expected: &str, found: String) -> FormatError {
    FormatError::new(Rule::TensorName, "safetensors header", expected, found)
}

/// An object's pairs in order, the values unread.
struct Pairs<'h>(Vec<(String, &'h RawValue)>);

impl<'de> Deserialize<'de> for Pairs<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Pairs<'de>, D::Error> {
        struct Walk;
        impl<'de> Visitor<'de> for Walk {
            type Value = Pairs<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs<'de>, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    if pairs.len() == MAX_ENTRIES {
                        let found = format!("more than {MAX_ENTRIES} entries");
                        return Err(serde::de::Error::custom(found));
                    }
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(Walk)
    }
}

/// An object whose values are strings and whose names are there once.
struct Strings;

impl<'de> Deserialize<'de> for Strings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Strings, D::Error> {
        struct Walk;
        impl<'de> Visitor<'de> for Walk {
            type Value = Strings;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Strings, A::Error> {
                let mut seen = HashSet::new();
                while let Some((name, _)) = map.next_entry::<String, Cow<'de, str>>()? {
                    if !seen.insert(name) {
                        return Err(serde::de::Error::custom("a name is there twice"));
                    }
                }
                Ok(Strings)
            }
        }
        deserializer.deserialize_map(Walk)
    }
}

/// Sizes of dimensions, as many as a tensor may have.
struct Shape(Vec<u64>);

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Shape, D::Error> {
        struct Walk;
        impl<'de> Visitor<'de> for Walk {
            type Value = Shape;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "at most {MAX_RANK} sizes")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut sizes: A) -> Result<Shape, A::Error> {
                let mut shape = Vec::new();
                while let Some(size) = sizes.next_element()? {
                    if shape.len() == MAX_RANK {
                        return Err(serde::de::Error::invalid_length(MAX_RANK + 1, &self));
                    }
                    shape.push(size);
                }
                Ok(Shape(shape))
            }
        }
        deserializer.deserialize_seq(Walk)
    }
}
