//! Formats sizes, counts and lists for people, and makes strings from files safe to print.

use std::borrow::Cow;

/// Bytes in decimal units, as HuggingFace counts them: `13.5 GB`, `812 B`.
pub fn human_bytes(bytes: u64) -> String {
    const UNITS: [(u64, &str); 4] =
        [(1_000_000_000_000, "TB"), (1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "kB")];
    for (size, unit) in UNITS {
        if bytes >= size {
            #[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
            let value = bytes as f64 / size as f64;
            return format!("{value:.1} {unit}");
        }
    }
    format!("{bytes} B")
}

/// A number of parameters with three digits: `1.10B`, `124M`, `62.6k`, `812`.
pub fn human_count(count: u64) -> String {
    const UNITS: [(u64, &str); 4] =
        [(1_000_000_000_000, "T"), (1_000_000_000, "B"), (1_000_000, "M"), (1_000, "k")];
    for (size, unit) in UNITS {
        if count >= size {
            #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
            let value = count as f64 / size as f64;
            let decimals = if value < 9.995 { 2 } else { usize::from(value < 99.95) };
            return format!("{value:.decimals$}{unit}");
        }
    }
    count.to_string()
}

/// A count with its noun: `1 tensor`, `2 tensors`, `3 directories`.
pub fn counted(count: u64, noun: &str) -> String {
    match (count, noun.strip_suffix('y')) {
        (1, _) => format!("1 {noun}"),
        (_, Some(stem)) if !stem.ends_with(['a', 'e', 'o']) => format!("{count} {stem}ies"),
        _ => format!("{count} {noun}s"),
    }
}

/// The first `most` of some names, and how many more there are: `a, b, 3 more`.
pub fn listed<N>(names: N, most: usize) -> String
where
    N: IntoIterator<Item = String, IntoIter: ExactSizeIterator>,
{
    let mut names = names.into_iter();
    let mut shown: Vec<String> = names.by_ref().take(most).collect();
    let more = names.len();
    if more > 0 {
        shown.push(format!("{more} more"));
    }
    shown.join(", ")
}

/// A string from a file, safe to print: control characters, bidirectional marks and backslashes
/// become escapes, and what would be longer than 200 bytes is cut with `…`.
pub fn escape(text: &str) -> String {
    escape_up_to(text, 200)
}

/// The same, cut where it would be longer than `most` bytes.
pub fn escape_up_to(text: &str, most: usize) -> String {
    let mut out = String::with_capacity(text.len().min(most));
    for character in text.chars() {
        if out.len() >= most {
            out.push('…');
            break;
        }
        let unprintable = character.is_control()
            || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
        if unprintable || character == '\\' {
            out.extend(character.escape_default());
        } else {
            out.push(character);
        }
    }
    out
}

/// A text cut to at most `most` bytes. It loses its middle, so that the name at the end of a path
/// stays.
pub fn cut(text: &str, most: usize) -> Cow<'_, str> {
    if text.len() <= most {
        return Cow::Borrowed(text);
    }
    let half = most.saturating_sub('…'.len_utf8()) / 2;
    let head = (0..=half).rev().find_map(|end| text.get(..end)).unwrap_or_default();
    let start = text.len().saturating_sub(half);
    let tail = (start..=text.len()).find_map(|start| text.get(start..)).unwrap_or_default();
    Cow::Owned(format!("{head}…{tail}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_have_three_digits() {
        let counts =
            [812, 1_000, 62_560, 124_439_808, 1_100_048_384, 6_738_415_616, 69_976_000_000];
        let words = ["812", "1.00k", "62.6k", "124M", "1.10B", "6.74B", "70.0B"];
        assert_eq!(counts.map(human_count), words);
    }

    #[test]
    fn bytes_are_shown_in_decimal_units() {
        assert_eq!(human_bytes(999), "999 B");
        assert_eq!(human_bytes(13_500_000_000), "13.5 GB");
        assert_eq!(human_bytes(5_000_000_000_000), "5.0 TB");
    }

    #[test]
    fn one_of_a_kind_is_singular() {
        let counts = [(0, "tensor"), (1, "tensor"), (2, "tensor"), (1, "entry"), (3, "entry")];
        let words = ["0 tensors", "1 tensor", "2 tensors", "1 entry", "3 entries"];
        assert_eq!(counts.map(|(count, noun)| counted(count, noun)), words);
        assert_eq!(counted(2, "key"), "2 keys");
    }

    #[test]
    fn a_long_list_is_cut_and_says_how_much_is_missing() {
        let list = |most| listed(["a", "b", "c"].map(str::to_owned), most);
        assert_eq!((list(3), list(2)), ("a, b, c".to_owned(), "a, b, 1 more".to_owned()));
        assert_eq!(listed([], 3), "");
    }

    #[test]
    fn terminal_escapes_do_not_survive() {
        assert_eq!(escape("a\u{1b}[31mb\n\u{202e}"), "a\\u{1b}[31mb\\n\\u{202e}");
        assert_eq!(escape("层.重量"), "层.重量");
        assert_eq!(escape(&"x".repeat(300)).chars().count(), 201);
        assert!(escape(&"\u{202e}".repeat(300)).len() < 212);
    }

    #[test]
    fn a_text_that_is_cut_keeps_both_ends() {
        assert_eq!(cut("short", 5), "short");
        assert_eq!(cut("/a/very/long/path/file.bin", 20), "/a/very/…file.bin");
        for most in 0..40 {
            assert!(cut("éééééééééééééééé", most).len() <= most.max(3), "{most}");
        }
    }
}
