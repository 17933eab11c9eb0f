//! Reads the words of a directory's tokenizer, from the files that transformers would take them from.

use std::path::Path;

use crate::checkpoint::files::small_file::{is_present, read_bounded};
use crate::checkpoint::side_files::tokenizer::{MAX_TOKENIZER_BYTES, unusable};
use crate::checkpoint::side_files::words::added::{
    AddedToken, TokenizerConfig, of_added_tokens, of_tokenizer_config,
};
use crate::checkpoint::side_files::words::files::{of_vocab_json, of_vocab_txt};
use crate::checkpoint::side_files::words::pieces::{ranks, sentencepieces};
use crate::checkpoint::side_files::words::spelling::{Alphabet, Spelling};
use crate::checkpoint::side_files::words::tokenizer_json;
use crate::checkpoint::side_files::words::vocabulary::{Vocabulary, Words};
use crate::error::Result;
use crate::tensor::escape;

/// Files of words, the first that is there counts: a sentencepiece model beside a vocab.json has ids of
/// its own, which are not the model's rows (M2M100, Speech2Text).
const PLAIN: [&str; 3] = ["vocab.json", "encoder.json", "vocab.txt"];

/// Sentencepiece models, or tiktoken's ranks under such a name.
pub(crate) const PIECES: [&str; 6] = [
    "tokenizer.model",
    "spiece.model",
    "spm.model",
    "sentencepiece.model",
    "sentencepiece.bpe.model",
    "spm_char.model",
];

/// Files whose ids are not rows, or not one vocabulary's: FSMT's, Marian's with two, BARTpho's.
const NOT_ROWS: [&str; 4] = ["vocab-src.json", "vocab-tgt.json", "target_vocab.json", "dict.txt"];

/// Classes whose ids are their pieces' places moved by one, after fairseq (transformers 4.57.3,
/// `fairseq_offset` of `tokenization_xlm_roberta.py`, `…_mbart.py`, `…_nllb.py`, `…_xglm.py`).
const FAIRSEQ: [&str; 5] = ["XLMRoberta", "MBart", "MBart50", "Nllb", "XGLM"];

/// Classes whose ids are their pieces' places.
const IN_PLACE: [&str; 10] = [
    "Llama",
    "CodeLlama",
    "Gemma",
    "T5",
    "Albert",
    "XLNet",
    "BigBird",
    "DebertaV2",
    "Reformer",
    "RemBert",
];

/// The file of added tokens and settings.
const CONFIG: &str = "tokenizer_config.json";

impl Vocabulary {
    /// The words of the tokenizer files in `dir`: of tokenizer.json, else of the files of transformers'
    /// Python tokenizers, with the added tokens. Without files, or where their ids are known to code
    /// alone, it is empty and says why.
    ///
    /// # Errors
    /// [`Kind::Data`](crate::error::Kind::Data) for a file that is not what its name says or is larger
    /// than 512 MiB, [`Kind::Io`](crate::error::Kind::Io) and
    /// [`Kind::NoInput`](crate::error::Kind::NoInput) where one can't be read.
    pub fn read(dir: &Path) -> Result<Vocabulary> {
        let config = part(dir, CONFIG, |bytes| {
            of_tokenizer_config(std::str::from_utf8(bytes).map_err(|error| error.to_string())?)
        })?
        .unwrap_or_default();
        let listed = part(dir, "added_tokens.json", of_added_tokens)?.unwrap_or_default();
        let template = part(dir, "chat_template.jinja", |bytes| {
            Ok(String::from_utf8_lossy(bytes).into_owned())
        })?;
        let TokenizerConfig { added, class, chat_template } = config;
        let added = if added.is_empty() { listed } else { added };
        let mut vocabulary = match part(dir, "tokenizer.json", tokenizer_json::read)? {
            Some(fast) => with_further(fast, added),
            None => of_python_files(dir, class.as_deref(), added)?,
        };
        vocabulary.chat_template = template.or(chat_template);
        Ok(vocabulary)
    }
}

/// Reads a file of the directory, where it is there.
fn part<T>(
    dir: &Path,
    name: &str,
    read: impl Fn(&[u8]) -> std::result::Result<T, String>,
) -> Result<Option<T>> {
    let path = dir.join(name);
    if !is_present(&path)? {
        return Ok(None);
    }
    let bytes = read_bounded(&path, MAX_TOKENIZER_BYTES)?;
    read(&bytes).map(Some).map_err(|reason| unusable(&path, &bytes, reason))
}

/// tokenizer.json's words and those added tokens of other files whose row and text it lacks, as
/// transformers adds them.
fn with_further(fast: Vocabulary, added: Vec<(u64, AddedToken)>) -> Vocabulary {
    let mut fast = Vocabulary { file: Some("tokenizer.json".to_owned()), ..fast };
    let further: Vec<_> = {
        let ids = fast.ids();
        let is_new = |(id, token): &(u64, AddedToken)| {
            fast.word(*id).is_none() && !ids.contains_key(token.content.as_str())
        };
        added.into_iter().filter(is_new).collect()
    };
    further.into_iter().for_each(|(id, token)| fast.insert(id, token));
    fast
}

/// The words of the files of transformers' Python tokenizers.
fn of_python_files(
    dir: &Path,
    class: Option<&str>,
    added: Vec<(u64, AddedToken)>,
) -> Result<Vocabulary> {
    let unread = |file: &str, why: &str| Vocabulary {
        file: Some(file.to_owned()),
        unread: Some(why.to_owned()),
        ..Vocabulary::default()
    };
    for name in NOT_ROWS {
        if is_present(&dir.join(name))? {
            return Ok(unread(name, "its ids are not the model's rows"));
        }
    }
    for name in PLAIN {
        let read = if name == "vocab.txt" { of_vocab_txt } else { of_vocab_json };
        let Some(words) = part(dir, name, read)? else { continue };
        if words.len() == 0 {
            return Ok(unread(name, "it has no words with ids"));
        }
        let spelling = Spelling::of(words.texts());
        let file = Some(name.to_owned());
        return Ok(Vocabulary { spelling, file, ..Vocabulary::new(words, added) });
    }
    let name_of =
        |entry: std::io::Result<std::fs::DirEntry>| entry.ok()?.file_name().into_string().ok();
    let entries = std::fs::read_dir(dir).into_iter().flatten();
    let mut names: Vec<String> =
        entries.filter_map(name_of).filter(|name| name.ends_with(".tiktoken")).collect();
    names.sort();
    for name in PIECES.into_iter().chain(names.iter().map(String::as_str)) {
        let Some(found) = part(dir, name, pieces_or_ranks)? else { continue };
        let (words, alphabet) = match found {
            Pieces::Ranks(words) => (words, Alphabet::Bytes),
            Pieces::Sentencepiece(pieces) => match in_rows(name, class, pieces) {
                Ok(words) => (words, Alphabet::Spaces),
                Err(why) => return Ok(unread(name, &why)),
            },
        };
        // tiktoken's special tokens, T5's extra ids and the like are known to code unless listed.
        let open = alphabet == Alphabet::Bytes || (name != "tokenizer.model" && added.is_empty());
        let spelling = Spelling { alphabet, ..Spelling::default() };
        let file = Some(name.to_owned());
        return Ok(Vocabulary { spelling, file, open, ..Vocabulary::new(words, added) });
    }
    if added.is_empty() {
        return Ok(Vocabulary::default());
    }
    Ok(unread(CONFIG, "it names added tokens alone"))
}

enum Pieces {
    Ranks(Words),
    Sentencepiece(Vec<String>),
}

fn pieces_or_ranks(bytes: &[u8]) -> std::result::Result<Pieces, String> {
    // Ranks first: short lines can pass for protobuf, but no model passes for lines of text.
    let pieces = || sentencepieces(bytes).map(Pieces::Sentencepiece);
    ranks(bytes)
        .map(Pieces::Ranks)
        .or_else(pieces)
        .ok_or_else(|| "neither sentencepiece pieces nor ranks".to_owned())
}

/// Pieces in the rows that a class of transformers gives them, or why that is not known.
fn in_rows(
    name: &str,
    class: Option<&str>,
    pieces: Vec<String>,
) -> std::result::Result<Words, String> {
    let class = class.map(|class| class.trim_end_matches("Fast").trim_end_matches("Tokenizer"));
    let is_of = |classes: &[&str]| class.is_some_and(|class| classes.contains(&class));
    let mut words = Words::default();
    if is_of(&FAIRSEQ) {
        // <unk>, <s> and </s> of the pieces are fairseq's four.
        let own = ["<s>", "<pad>", "</s>", "<unk>"].map(str::to_owned);
        for (id, word) in (0..).zip(own.into_iter().chain(pieces.into_iter().skip(3))) {
            words.add(id, word)?;
        }
    } else if is_of(&IN_PLACE) || (class.is_none() && name == "tokenizer.model") {
        for (id, word) in (0..).zip(pieces) {
            words.add(id, word)?;
        }
    } else {
        return Err(match class {
            Some(class) => {
                format!("the rows of its pieces are known to the code of {} alone", escape(class))
            }
            None => "the rows of its pieces are known to the tokenizer's code alone".to_owned(),
        });
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::error::Kind;

    fn read(files: &[(&str, &[u8])]) -> Result<Vocabulary> {
        let dir = tempfile::tempdir().expect("a directory");
        files
            .iter()
            .for_each(|(name, bytes)| fs::write(dir.path().join(name), bytes).expect("written"));
        Vocabulary::read(dir.path())
    }

    fn words(files: &[(&str, &[u8])]) -> Vec<(u64, String)> {
        let found = read(files).expect("words");
        found.words().map(|(id, word)| (id, word.to_owned())).collect()
    }

    fn of(pairs: &[(u64, &str)]) -> Vec<(u64, String)> {
        pairs.iter().map(|(id, word)| (*id, (*word).to_owned())).collect()
    }

    const FAST: &[u8] = br#"{"added_tokens": [{"id": 2, "content": "<x>"}],
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 1}}}"#;
    const SPM: &[u8] =
        b"\x0a\x07\x0a\x05<unk>\x0a\x05\x0a\x03<s>\x0a\x06\x0a\x04</s>\x0a\x03\x0a\x01a";

    #[test]
    fn tokenizer_json_counts_before_other_files() {
        let config = br#"{"added_tokens_decoder": {"2": {"content": "<y>"}, "9": {"content": "a"}, "3": {"content": "<z>"}}}"#;
        let files = [("tokenizer.json", FAST), ("vocab.json", br#"{"q": 0}"#), (CONFIG, config)];
        assert_eq!(words(&files), of(&[(0, "a"), (1, "b"), (2, "<x>"), (3, "<z>")]));
    }

    #[test]
    fn files_of_python_tokenizers_are_words_and_added_tokens() {
        let vocab: (&str, &[u8]) = ("vocab.json", br#"{"a": 0, "\u0120b": 1}"#);
        let added: (&str, &[u8]) = ("added_tokens.json", br#"{"<x>": 2}"#);
        assert_eq!(words(&[vocab, added]), of(&[(0, "a"), (1, "Ġb"), (2, "<x>")]));
        // The decoder is newer and says all.
        let config: (&str, &[u8]) =
            (CONFIG, br#"{"added_tokens_decoder": {"1": {"content": "<y>"}}}"#);
        assert_eq!(words(&[vocab, added, config]), of(&[(0, "a"), (1, "<y>")]));
        assert_eq!(words(&[("vocab.txt", b"a\n##b\n")]), of(&[(0, "a"), (1, "##b")]));
        let read = read(&[vocab]).expect("words");
        assert_eq!((read.file(), read.spelling.alphabet), (Some("vocab.json"), Alphabet::Bytes));
    }

    #[test]
    fn pieces_are_in_the_rows_that_their_class_gives_them() {
        let in_place = of(&[(0, "<unk>"), (1, "<s>"), (2, "</s>"), (3, "a")]);
        assert_eq!(words(&[("tokenizer.model", SPM)]), in_place);
        let class = |name: &str| format!(r#"{{"tokenizer_class": "{name}"}}"#);
        let with = |name: &str, file: &'static str| {
            words(&[(file, SPM), (CONFIG, class(name).as_bytes())])
        };
        assert_eq!(with("T5TokenizerFast", "spiece.model"), in_place);
        assert_eq!(
            with("XLMRobertaTokenizer", "sentencepiece.bpe.model"),
            of(&[(0, "<s>"), (1, "<pad>"), (2, "</s>"), (3, "<unk>"), (4, "a")])
        );
        assert!(with("PegasusTokenizer", "spiece.model").is_empty());
        let unknown = read(&[("spiece.model", SPM)]).expect("read");
        assert!(unknown.is_empty() && unknown.unread().is_some());
        let ranks = read(&[("qwen.tiktoken", b"IQ== 0\n")]).expect("read");
        assert!(ranks.is_open() && ranks.word(0) == Some("!"));
    }

    #[test]
    fn no_files_are_no_words_and_broken_ones_are_refused() {
        assert_eq!(read(&[("config.json", b"{}")]).expect("none"), Vocabulary::default());
        for name in ["tokenizer.json", "vocab.json", "tokenizer.model", "added_tokens.json", CONFIG]
        {
            let error = read(&[(name, b"{\"a\": ")]).expect_err(name);
            assert_eq!(error.kind(), Kind::Data, "{name}");
            assert!(error.path().is_some_and(|path| path.ends_with(name)));
        }
        assert!(
            read(&[("source.spm", SPM), ("target_vocab.json", b"{}"), ("vocab.json", b"{}")])
                .expect("read")
                .is_empty()
        );
    }

    #[test]
    fn a_chat_template_is_the_same_in_either_file() {
        let of = |files: &[(&str, &[u8])]| read(files).expect("read").chat_template;
        let inside = of(&[(CONFIG, br#"{"chat_template": "{{ x }}\n"}"#)]);
        assert_eq!(inside, of(&[("chat_template.jinja", b"{{ x }}\n")]));
        assert!(inside.is_some());
    }
}
