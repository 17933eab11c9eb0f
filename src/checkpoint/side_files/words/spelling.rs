//! Recognises how a tokenizer spells its words: two vocabularies are compared only where both spell
//! alike.

use std::fmt;

/// What the characters of a word stand for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Alphabet {
    /// Themselves.
    #[default]
    Text,
    /// One byte each, a space being `Ġ` (GPT-2's byte-level BPE).
    Bytes,
    /// Themselves, a space being `▁` (sentencepiece).
    Spaces,
}

/// How the words of one vocabulary are spelled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spelling {
    /// What its characters stand for.
    pub(crate) alphabet: Alphabet,
    /// What a word begins with that goes on another one: WordPiece's `##`.
    pub(crate) prefix: Option<String>,
    /// What a word ends with that ends one of the text: `</w>`.
    pub(crate) suffix: Option<String>,
}

impl Spelling {
    /// The spelling of files that don't say it, by the marks that their words bear. Words without any
    /// marks are plain.
    pub(crate) fn of<'w>(words: impl Iterator<Item = &'w str>) -> Spelling {
        let (mut bytes, mut spaces, mut prefix, mut suffix) = (0u64, 0u64, 0u64, 0u64);
        for word in words {
            bytes += u64::from(word.starts_with('Ġ'));
            spaces += u64::from(word.starts_with('▁'));
            prefix += u64::from(word.len() > 2 && word.starts_with("##"));
            suffix += u64::from(word.ends_with("</w>"));
        }
        let alphabet = match () {
            () if bytes > spaces => Alphabet::Bytes,
            () if spaces > 0 => Alphabet::Spaces,
            () => Alphabet::Text,
        };
        let plain = alphabet == Alphabet::Text;
        Spelling {
            alphabet,
            prefix: (plain && prefix > 0).then(|| "##".to_owned()),
            suffix: (suffix > bytes.max(spaces)).then(|| "</w>".to_owned()),
        }
    }
}

impl fmt::Display for Spelling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.alphabet {
            Alphabet::Text => "plain text",
            Alphabet::Bytes => "bytes (`Ġ` for a space)",
            Alphabet::Spaces => "sentencepiece (`▁` for a space)",
        })?;
        if let Some(prefix) = &self.prefix {
            write!(f, " with `{}` before what goes on a word", crate::tensor::escape(prefix))?;
        }
        match &self.suffix {
            Some(suffix) => {
                write!(f, " with `{}` at the end of a word", crate::tensor::escape(suffix))
            }
            None => Ok(()),
        }
    }
}

/// The character that stands for a byte in GPT-2's byte-level BPE (`bytes_to_unicode` of
/// transformers' `tokenization_gpt2.py`): printable ones for themselves, the others from U+0100 on.
pub(crate) fn character_of(byte: u8) -> char {
    let is_itself = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    if is_itself(byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|other| !is_itself(*other)).count();
    u32::try_from(before)
        .ok()
        .and_then(|before| char::from_u32(0x100 + before))
        .unwrap_or('\u{fffd}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_the_characters_that_transformers_gives_them() {
        // bytes_to_unicode() of transformers 4.57.3.
        for (byte, character) in [
            (b'a', 'a'),
            (b' ', 'Ġ'),
            (b'\n', 'Ċ'),
            (b'\t', 'ĉ'),
            (0, 'Ā'),
            (0x7f, 'ġ'),
            (0xa0, 'ł'),
            (0xad, 'Ń'),
            (0xe9, 'é'),
        ] {
            assert_eq!(character_of(byte), character, "{byte:#x}");
        }
    }

    #[test]
    fn marks_tell_the_spelling_of_files_that_do_not() {
        let of = |words: &[&str]| Spelling::of(words.iter().copied());
        let alphabet = |words: &[&str]| of(words).alphabet;
        assert_eq!(alphabet(&["a", "Ġthe", "Ġof", "▁"]), Alphabet::Bytes);
        assert_eq!(alphabet(&["a", "▁the", "Ġ"]), Alphabet::Spaces);
        assert_eq!(of(&["a", "b"]), Spelling::default());
        assert_eq!(of(&["the", "##ing"]).prefix.as_deref(), Some("##"));
        assert_eq!(of(&["##", "#"]).prefix, None);
        assert_eq!(of(&["the</w>", "t"]).suffix.as_deref(), Some("</w>"));
    }
}
