//! Decodes arguments that pickles write as lines of text (protocol 0), and long integers (protocol
//! 2).

/// A decimal integer with an optional sign, nothing else; `None` for other text and above 128 bits.
pub(super) fn decimal(line: &[u8]) -> Option<i128> {
    let text = std::str::from_utf8(line).ok()?;
    let digits = text.strip_prefix('-').unwrap_or(text);
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if plain { text.parse().ok() } else { None }
}

/// A memo slot as a line of text.
pub(super) fn slot(line: &[u8]) -> Option<u32> {
    decimal(line).and_then(|value| u32::try_from(value).ok())
}

/// Two's complement, little-endian, of any length (`LONG1`, `LONG4`); `None` above 128 bits.
pub(super) fn twos_complement(bytes: &[u8]) -> Option<i128> {
    let negative = bytes.last().is_some_and(|byte| *byte >= 0x80);
    let fill = if negative { 0xff } else { 0 };
    let mut wide = [fill; 16];
    for (position, byte) in bytes.iter().enumerate() {
        match wide.get_mut(position) {
            Some(slot) => *slot = *byte,
            None if *byte == fill => {}
            None => return None,
        }
    }
    let value = i128::from_le_bytes(wide);
    // The sign bit of the sixteen bytes must be that of the whole number.
    if (value < 0) == negative { Some(value) } else { None }
}

/// The bytes of a quoted Python 2 string with its escapes resolved (`STRING`), or `None`.
pub(super) fn quoted(line: &[u8]) -> Option<Vec<u8>> {
    let (quote, rest) = line.split_first()?;
    let (end, inner) = rest.split_last()?;
    if quote != end || !matches!(quote, b'\'' | b'"') {
        return None;
    }
    let mut out = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter().copied();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        out.push(match bytes.next()? {
            same @ (b'\\' | b'\'' | b'"') => same,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'x' => {
                let value = hex(&[bytes.next()?, bytes.next()?])?;
                u8::try_from(value).ok()?
            }
            // repr() of a string writes no other escape.
            _ => return None,
        });
    }
    Some(out)
}

/// Text in raw-unicode-escape (`UNICODE`): Latin-1 but for `\uXXXX` and `\UXXXXXXXX`; `None` where
/// an escape is broken or no character.
pub(super) fn raw_unicode(line: &[u8]) -> Option<String> {
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some((byte, after)) = rest.split_first() {
        let digits = match (byte, after.first()) {
            (b'\\', Some(b'u')) => 4usize,
            (b'\\', Some(b'U')) => 8,
            _ => {
                out.push(char::from(*byte));
                rest = after;
                continue;
            }
        };
        let end = digits.checked_add(1)?;
        out.push(char::from_u32(hex(after.get(1..end)?)?)?);
        rest = after.get(end..)?;
    }
    Some(out)
}

fn hex(digits: &[u8]) -> Option<u32> {
    let plain = digits.iter().all(u8::is_ascii_hexdigit);
    let text = std::str::from_utf8(digits).ok()?;
    if plain { u32::from_str_radix(text, 16).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_integers_keep_their_sign() {
        assert_eq!(twos_complement(&[]), Some(0));
        assert_eq!(twos_complement(&[0xff]), Some(-1));
        assert_eq!(twos_complement(&[0, 0, 0, 0x80, 0]), Some(1 << 31));
        assert_eq!(twos_complement(&[0xff; 40]), Some(-1));
        assert_eq!(twos_complement(&[0x7f; 17]), None);
        let mut unsigned = [0xff; 17];
        unsigned[16] = 0;
        assert_eq!(twos_complement(&unsigned), None);
    }

    #[test]
    fn decimal_lines_are_digits_only() {
        assert_eq!(decimal(b"-12"), Some(-12));
        for line in ["", "-", "+1", "1_000", " 1", "0x1", "--1"] {
            assert_eq!(decimal(line.as_bytes()), None, "{line:?}");
        }
        assert_eq!(decimal(&[b'9'; 60]), None);
    }

    #[test]
    fn quoted_strings_resolve_what_repr_writes() {
        assert_eq!(quoted(br"'a\x41\'\n'"), Some(b"aA'\n".to_vec()));
        assert_eq!(quoted(b"'"), None);
        assert_eq!(quoted(br"'a\'"), None);
        assert_eq!(quoted(br"'\x4'"), None);
    }

    #[test]
    fn raw_unicode_is_latin_one_with_escapes() {
        assert_eq!(raw_unicode(b"\xe9\\u00e9\\U0001F600\\n").as_deref(), Some("éé😀\\n"));
        assert_eq!(raw_unicode(b"\\ud800"), None);
        assert_eq!(raw_unicode(b"\\u12"), None);
    }
}
