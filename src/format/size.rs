//! Parses sizes as people write them: `5GB`, `1.5GB`, `512MiB`, `5000000000`.
//!
//! Source: huggingface_hub 0.36.2 `serialization/_base.py` (`parse_size_to_int`), as transformers
//! 4.57.3 uses it for `max_shard_size`. The binary units are ours.

use crate::error::{Error, Kind, Result};

const UNITS: [(&str, f64); 8] = [
    ("KIB", 1024.0),
    ("MIB", 1_048_576.0),
    ("GIB", 1_073_741_824.0),
    ("TIB", 1_099_511_627_776.0),
    ("KB", 1e3),
    ("MB", 1e6),
    ("GB", 1e9),
    ("TB", 1e12),
];

/// A size in bytes.
///
/// A number with a unit of two or three letters in any case: KB, MB, GB, TB (powers of 1000) or KiB,
/// MiB, GiB, TiB (powers of 1024). The number is written as Python's float takes it (`1_000`, `1e3`,
/// `.5`), multiplied in float64 and truncated: `1.001KB` is 1000 bytes. Without a unit it is a whole
/// number of bytes. What is beyond 2^64 - 1 is that.
///
/// # Errors
/// [`Kind::Usage`] for anything else, also for NaN, infinity and, unlike huggingface_hub, sizes below
/// zero.
pub fn parse_size(text: &str) -> Result<u64> {
    parse(text).ok_or_else(|| {
        let error = Error::new(Kind::Usage, "size");
        if strip(text).starts_with('-') {
            return error.expected("0 or more", format!("a negative one, `{text}`"));
        }
        error.expected(
            "a number and a unit (KB, MB, GB, TB, KiB, MiB, GiB, TiB) such as `5GB`, or a whole \
             number of bytes",
            format!("`{text}`"),
        )
    })
}

fn parse(text: &str) -> Option<u64> {
    let text = strip(text);
    if text.starts_with('-') {
        return None;
    }
    let upper = text.to_ascii_uppercase();
    let Some((unit, size)) = UNITS.iter().find(|(unit, _)| upper.ends_with(unit)) else {
        return python_int(text);
    };
    // The unit is ASCII, so this is a character boundary.
    let number = strip(text.get(..text.len().checked_sub(unit.len())?)?);
    let bytes = python_float(number)? * size;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "not negative; truncates and saturates, as documented"
    )]
    bytes.is_finite().then_some(bytes as u64)
}

/// Python's `str.strip`: white space, and four separators that Rust doesn't count as such.
fn strip(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c))
}

/// Python's `float` of a decimal literal in ASCII; not of `inf` and `nan`.
fn python_float(text: &str) -> Option<f64> {
    let decimal = |c: char| matches!(c, '0'..='9' | '.' | '+' | '-' | 'e' | 'E');
    let digits = without_underscores(text)?;
    // Rust takes the same literals as Python; the filter keeps its words for infinity and NaN out.
    digits.chars().all(decimal).then(|| digits.parse().ok())?
}

/// Python's `int` of a decimal literal in ASCII, saturated.
fn python_int(text: &str) -> Option<u64> {
    let number = without_underscores(text)?;
    let digits = number.strip_prefix('+').unwrap_or(&number);
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| digits.parse().unwrap_or(u64::MAX))
}

/// The text without `_`, each of which must stand between two digits.
fn without_underscores(text: &str) -> Option<String> {
    let parts: Vec<&str> = text.split('_').collect();
    let digit = |c: Option<char>| c.is_some_and(|c| c.is_ascii_digit());
    let well_placed = parts.windows(2).all(|pair| match pair {
        [left, right] => digit(left.chars().next_back()) && digit(right.chars().next()),
        _ => true,
    });
    well_placed.then(|| parts.concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_that_huggingface_hub_takes() {
        for (text, bytes) in [
            ("5GB", 5_000_000_000),
            ("5gb", 5_000_000_000),
            (" 5 GB ", 5_000_000_000),
            ("5 Gb", 5_000_000_000),
            ("1.5GB", 1_500_000_000),
            ("1e3MB", 1_000_000_000),
            ("0.1MB", 100_000),
            ("1_000KB", 1_000_000),
            ("1.001KB", 1000),
            ("0KB", 0),
            (".5KB", 500),
            ("5.KB", 5000),
            ("+1e1_0KB", 10_000_000_000_000),
            ("\u{1f}1TB\u{a0}", 1_000_000_000_000),
            ("1e290GB", u64::MAX),
        ] {
            assert_eq!(parse(text), Some(bytes), "{text}");
        }
    }

    #[test]
    fn plain_bytes_and_binary_units_are_taken_besides() {
        for (text, bytes) in [
            ("5000000000", 5_000_000_000),
            ("1_000", 1000),
            ("99999999999999999999", u64::MAX),
            ("1KiB", 1024),
            ("1.5mib", 1_572_864),
            ("20GiB", 21_474_836_480),
            ("1 TiB", 1_099_511_627_776),
        ] {
            assert_eq!(parse(text), Some(bytes), "{text}");
        }
    }

    #[test]
    fn other_sizes_are_a_usage_error() {
        for text in [
            "",
            "GB",
            "5G",
            "100B",
            "1PB",
            "nanGB",
            "infGB",
            "InfinityGB",
            "0x10GB",
            "1e400GB",
            "1e300GB",
            "1e9",
            "1.5",
            "five GB",
            "1__0KB",
            "_1KB",
            "1_KB",
            "1_.5KB",
            "1._5KB",
            "1e_5KB",
            "e5KB",
            ".KB",
            "1e+KB",
            "--1KB",
            "1 0KB",
            "é",
            "éB",
            "5\u{661}GB",
            "- 5GB",
            "-5GB",
            "-1",
            "-0",
            "-99999999999999999999",
            "+-5",
            "5 5",
        ] {
            let kind = parse_size(text).err().map(|error| error.kind());
            assert_eq!(kind, Some(Kind::Usage), "{text}");
        }
    }
}
