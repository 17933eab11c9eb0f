//! Reads vocab.json and vocab.txt, files that hold only words.

use crate::checkpoint::side_files::words::tokenizer_json::ModelWords;
use crate::checkpoint::side_files::words::vocabulary::Words;

/// vocab.json: an object of ids. Objects in it (one for each language) name no rows.
///
/// # Errors
/// In words, where it is no such file.
pub(crate) fn of_vocab_json(bytes: &[u8]) -> Result<Words, String> {
    let words: ModelWords = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    Ok(words.0)
}

/// vocab.txt: one word a line, ids from 0. Lines end as in Python's text mode.
///
/// # Errors
/// In words, where it is no such file.
pub(crate) fn of_vocab_txt(bytes: &[u8]) -> Result<Words, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
    let mut words = Words::default();
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(['\n', '\r']).unwrap_or(rest.len());
        let (line, ending) = rest.split_at(end);
        words.add(words.len() as u64, line.to_owned())?;
        rest = ending.strip_prefix("\r\n").or_else(|| ending.get(1..)).unwrap_or_default();
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_words_as_pythons_text_mode_has_them() {
        let words = |text: &str| {
            of_vocab_txt(text.as_bytes()).unwrap().texts().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(words("a\r\nb\rc\n\nd"), ["a", "b", "c", "", "d"]);
        assert_eq!(words("a\n"), ["a"]);
        assert!(of_vocab_txt(b"\xff").is_err());
    }

    #[test]
    fn an_object_of_objects_has_no_words() {
        assert_eq!(of_vocab_json(br#"{"eng": {"a": 0}}"#).unwrap().len(), 0);
        assert!(of_vocab_json(b"7").is_err());
        assert!(of_vocab_json(b"{\"a\": ").is_err());
    }
}
