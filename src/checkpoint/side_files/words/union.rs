//! The tokenizer of a child with the words of both parents: the primary's files with the new words.
//!
//! Added tokens of the secondary are added tokens of the child, as they were. Its ordinary words get
//! their rows in the model's own vocabulary: as added tokens they would be cut out of every text before
//! the tokenizer sees it, in the middle of words too.

use std::collections::HashMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::json;

use crate::checkpoint::files::small_file::{is_present, read_text_bounded};
use crate::checkpoint::side_files::config::splice::{Splice, place_of};
use crate::checkpoint::side_files::tokenizer::MAX_TOKENIZER_BYTES;
use crate::checkpoint::side_files::words::added::{AddedToken, of_tokenizer_config};
use crate::checkpoint::side_files::words::read::PIECES;
use crate::checkpoint::side_files::words::tokenizer_json::{self, ModelWords};
use crate::checkpoint::side_files::words::vocabulary::Vocabulary;
use crate::error::{Error, Kind, Result};
use crate::format::json::mask_python_literals;
use crate::tensor::{counted, escape};

const FAST: &str = "tokenizer.json";
const CONFIG: &str = "tokenizer_config.json";

/// Vocabularies of transformers' Python tokenizers beside the [`PIECES`]: they would lack the new ordinary
/// words.
const PYTHON: [&str; 4] = ["vocab.json", "merges.txt", "vocab.txt", "added_tokens.json"];

/// Files of the child's tokenizer that are not copies of the primary's.
#[derive(Debug, Default)]
pub(crate) struct UnionFiles {
    /// Names and contents.
    pub(crate) made: Vec<(String, Vec<u8>)>,
    /// The primary's files that the child must not have.
    pub(crate) left_out: Vec<String>,
    /// What was done, in words.
    pub(crate) reason: String,
}

/// A word that the primary's tokenizer lacks.
struct NewWord<'a> {
    row: u64,
    text: &'a str,
    /// As an added token, where the secondary has it as one.
    token: Option<&'a AddedToken>,
}

/// Makes the files: `own` is the vocabulary of the primary in `dir`, `new` are rows and words that it
/// lacks, `other` is the secondary's, from `other_dir`.
///
/// # Errors
/// [`Kind::Data`] where the files have no place for a word in its row.
pub(crate) fn files(
    (dir, own): (&Path, &Vocabulary),
    (other_dir, other): (&Path, &Vocabulary),
    new: &[(u64, String)],
) -> Result<UnionFiles> {
    let new: Vec<NewWord<'_>> = new
        .iter()
        .map(|(row, text)| NewWord { row: *row, text, token: other.added.get(text) })
        .collect();
    let ordinary = new.iter().filter(|word| word.token.is_none()).count();
    let mut files = UnionFiles::default();
    if new.is_empty() {
        return Ok(files);
    }
    files.reason =
        format!("the primary's with {} of the secondary", counted(new.len() as u64, "word"));
    let path = dir.join(FAST);
    let is_fast = is_present(&path)?;
    if is_fast {
        let text = read_text_bounded(&path, MAX_TOKENIZER_BYTES)?;
        let made = fast(&text, &new, &|| scores(&other_dir.join(FAST)))
            .map_err(|why| unmade(&path, &why))?;
        check(&made, own, &new).map_err(|why| unmade(&path, &why))?;
        files.made.push((FAST.to_owned(), made.into_bytes()));
    } else if ordinary > 0 {
        return Err(unmade(
            dir,
            &format!(
                "{} for a tokenizer without tokenizer.json",
                counted(ordinary as u64, "new word")
            ),
        ));
    }
    if let Some(config) = config(dir, own, &new, is_fast)? {
        files.made.push((CONFIG.to_owned(), config.into_bytes()));
    }
    files.left_out.push("added_tokens.json".to_owned());
    if ordinary > 0 {
        files.left_out = PIECES.into_iter().chain(PYTHON).map(str::to_owned).collect();
        files
            .reason
            .push_str(&format!(", {ordinary} of them not as added tokens; tokenizer.json alone"));
    }
    Ok(files)
}

fn unmade(path: &Path, why: &str) -> Error {
    Error::new(Kind::Data, "the tokenizer has no place for the words of both parents")
        .file(path)
        .expected("a place for every new word in its row", why)
        .with_hint(
            "save the primary's tokenizer anew with transformers, so that it has a tokenizer.json; or \
             --vocab primary, which adds no words",
        )
}

#[derive(Deserialize)]
struct Numbered {
    id: u64,
    #[serde(flatten)]
    token: AddedToken,
}

fn added_entry(row: u64, token: &AddedToken) -> String {
    let AddedToken { content, single_word, lstrip, rstrip, normalized, special } = token;
    json!({
        "id": row, "content": content, "single_word": single_word, "lstrip": lstrip,
        "rstrip": rstrip, "normalized": normalized, "special": special
    })
    .to_string()
}

/// What is read of tokenizer.json to change it.
struct Parts<'a> {
    added: Vec<Numbered>,
    words: ModelWords,
    vocab: &'a str,
}

/// tokenizer.json with the new words, or why there is no place for them.
fn fast(
    text: &str,
    new: &[NewWord<'_>],
    scores: &dyn Fn() -> HashMap<String, f64>,
) -> std::result::Result<String, String> {
    let broken = |error: serde_json::Error| error.to_string();
    let place = |object: &str, key: &str| place_of(text, object, key);
    let model = place(text, "model").and_then(|model| text.get(model)).ok_or("no model")?;
    let vocab_place = place(model, "vocab").ok_or("a model without words")?;
    let vocab = text.get(vocab_place.clone()).unwrap_or_default();
    let added_place = place(text, "added_tokens").ok_or("no added_tokens")?;
    let added = serde_json::from_str(text.get(added_place.clone()).unwrap_or_default());
    let parts = Parts {
        added: added.map_err(broken)?,
        words: serde_json::from_str(vocab).map_err(broken)?,
        vocab,
    };
    let tokens: Vec<String> =
        new.iter().filter_map(|word| Some(added_entry(word.row, word.token?))).collect();
    let mut splice = Splice::new(text);
    if !splice.append(added_place, &tokens) {
        return Err("added_tokens is no list".to_owned());
    }
    let known: HashMap<&str, u64> = parts.words.0.entries().collect();
    if !all_in_row(&known, &parts.added, new) {
        let entries = vocab_entries(&parts, &known, new, scores)?;
        if !splice.append(vocab_place, &entries) {
            return Err("a vocabulary that is no object and no list".to_owned());
        }
    }
    Ok(splice.finish())
}

/// Whether the tokenizers library gives every added token its id, and there are no other new words.
///
/// Ids of added tokens are not taken from the file but counted: that of the model's word, else one more
/// than the highest so far, or the number of the model's words (tokenizers 0.22,
/// `AddedVocabulary::add_tokens`).
fn all_in_row(known: &HashMap<&str, u64>, added: &[Numbered], new: &[NewWord<'_>]) -> bool {
    let size = known.len() as u64;
    let mut highest: Option<u64> = None;
    let mut counted: HashMap<&str, u64> = HashMap::new();
    let mut is_in_row = |id: u64, content: &'_ str, counted: Option<u64>| {
        let next =
            || highest.filter(|highest| *highest >= size).map_or(size, |highest| highest + 1);
        let given = known.get(content).copied().or(counted).unwrap_or_else(next);
        highest = highest.max(Some(given));
        given == id
    };
    for Numbered { id, token } in added {
        let before = counted.insert(&token.content, *id);
        if !is_in_row(*id, &token.content, before) {
            return false;
        }
    }
    new.iter().all(|word| word.token.is_some() && is_in_row(word.row, word.text, None))
}

/// Entries of the model's vocabulary for the new words and for all added tokens, whose ids are then
/// the model's.
fn vocab_entries(
    parts: &Parts<'_>,
    known: &HashMap<&str, u64>,
    new: &[NewWord<'_>],
    scores: &dyn Fn() -> HashMap<String, f64>,
) -> std::result::Result<Vec<String>, String> {
    let old = parts.added.iter().map(|added| (added.id, added.token.content.as_str(), true));
    let new = new.iter().map(|word| (word.row, word.text, word.token.is_some()));
    let mut words: Vec<(u64, &str, bool)> =
        old.chain(new).filter(|(_, text, _)| !known.contains_key(text)).collect();
    words.sort_unstable();
    words.dedup();
    if !parts.vocab.starts_with('[') {
        let entry = |(row, text, _): (u64, &str, bool)| format!("{}: {row}", json!(text));
        return Ok(words.into_iter().map(entry).collect());
    }
    // The places of a unigram model's pieces are their ids.
    let scores = scores();
    let own: Vec<(String, f64)> =
        serde_json::from_str(parts.vocab).map_err(|error| error.to_string())?;
    let lowest = own.iter().map(|(_, score)| *score).fold(0.0, f64::min);
    let mut entries = Vec::new();
    for (next, (row, text, is_added)) in (own.len() as u64..).zip(words) {
        if row != next {
            return Err(format!("a gap before row {row}, for \"{}\"", escape(text)));
        }
        let score = if is_added { 0.0 } else { scores.get(text).copied().unwrap_or(lowest) };
        entries.push(json!([text, score]).to_string());
    }
    Ok(entries)
}

/// The scores of a unigram model's pieces; none of another's.
fn scores(path: &Path) -> HashMap<String, f64> {
    #[derive(Deserialize)]
    struct File {
        model: Model,
    }
    #[derive(Deserialize)]
    struct Model {
        vocab: Vec<(String, f64)>,
    }
    let text = read_text_bounded(path, MAX_TOKENIZER_BYTES).unwrap_or_default();
    let file = serde_json::from_str(&text).ok();
    file.map(|File { model }| model.vocab.into_iter().collect()).unwrap_or_default()
}

/// Reads the new tokenizer.json: every word of before, and every new one, must have its row.
fn check(made: &str, own: &Vocabulary, new: &[NewWord<'_>]) -> std::result::Result<(), String> {
    let read = tokenizer_json::read(made.as_bytes())?;
    let ids = read.ids();
    let before = own.words().filter(|(_, text)| !own.added.contains_key(*text));
    let all = before.chain(new.iter().map(|word| (word.row, word.text)));
    for (row, text) in all {
        if ids.get(text) != Some(&row) {
            let found = ids.get(text).map_or("none".to_owned(), u64::to_string);
            return Err(format!("row {found} for \"{}\", whose row is {row}", escape(text)));
        }
    }
    match read.doubled() {
        Some((row, [a, b])) => {
            Err(format!("row {row} for \"{}\" and \"{}\"", escape(a), escape(b)))
        }
        None => Ok(()),
    }
}

/// tokenizer_config.json with the new added tokens; `None` where it needs no change.
fn config(
    dir: &Path,
    own: &Vocabulary,
    new: &[NewWord<'_>],
    is_fast: bool,
) -> Result<Option<String>> {
    let path = dir.join(CONFIG);
    let text = match is_present(&path)? {
        true => read_text_bounded(&path, MAX_TOKENIZER_BYTES)?,
        false if is_fast => return Ok(None),
        false => "{}".to_owned(),
    };
    let entry = |row: u64, token: &AddedToken| {
        let AddedToken { content, single_word, lstrip, rstrip, normalized, special } = token;
        let token = json!({
            "content": content, "lstrip": lstrip, "normalized": normalized, "rstrip": rstrip,
            "single_word": single_word, "special": special
        });
        format!("\"{row}\": {token}")
    };
    let mut entries: Vec<String> =
        new.iter().filter_map(|word| Some(entry(word.row, word.token?))).collect();
    let masked = mask_python_literals(&text);
    let mut splice = Splice::new(&text);
    let whole = masked.trim();
    let start = masked.find('{').unwrap_or(0);
    let fits = match place_of(&masked, &masked, "added_tokens_decoder") {
        Some(place) if text.get(place.clone()) != Some("null") => splice.append(place, &entries),
        // tokenizer.json has them all.
        _ if is_fast => return Ok(None),
        Some(_) => false,
        None => {
            // The key once there, transformers does not look into added_tokens.json.
            let old = own.words().filter_map(|(row, text)| Some(entry(row, own.added.get(text)?)));
            entries.splice(0..0, old);
            let decoder = format!("\"added_tokens_decoder\": {{{}}}", entries.join(",\n"));
            splice.append(start..start + whole.len(), &[decoder])
        }
    };
    let made = splice.finish();
    let read = of_tokenizer_config(&made).map_err(|why| unmade(&path, &why))?;
    let has = |word: &NewWord<'_>| {
        word.token.is_none_or(|token| read.added.contains(&(word.row, token.clone())))
    };
    match fits && new.iter().all(has) {
        true => Ok(Some(made)),
        false => Err(unmade(&path, "an added_tokens_decoder that takes no more")),
    }
}

#[cfg(test)]
#[path = "union_tests.rs"]
mod tests;
