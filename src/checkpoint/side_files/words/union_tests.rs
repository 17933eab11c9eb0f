//! What the files of a union are, for each kind of primary.

use std::fs;

use super::*;

const BPE: &str = r#"{"added_tokens": [{"id": 0, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true}, {"id": 3, "content": "[PAD]", "special": true}],
    "decoder": {"type": "ByteLevel"},
    "model": {"type": "BPE", "vocab": {"<s>": 0, "a": 1, "b": 2}, "merges": []}}"#;
const UNIGRAM: &str = r#"{"added_tokens": [{"id": 3, "content": "[PAD]", "special": true}],
    "model": {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["▁a", -1.5], ["b", -2.5]]}}"#;

fn special(content: &str) -> AddedToken {
    let plain = AddedToken::plain(content.to_owned());
    AddedToken { special: true, normalized: false, lstrip: true, ..plain }
}

/// The files of a primary with these ones, to which `new` words are added; those in `<>` are tokens.
fn made(own: &[(&str, &str)], new: &[(u64, &str)]) -> Result<UnionFiles> {
    let (dir, other_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    own.iter().for_each(|(name, text)| fs::write(dir.path().join(name), text).unwrap());
    let theirs = r#"{"model": {"type": "Unigram", "vocab": [["c", -7.25]]}}"#;
    fs::write(other_dir.path().join(FAST), theirs).unwrap();
    let own = Vocabulary::read(dir.path()).unwrap();
    let mut other = Vocabulary::of_words(new);
    for (_, text) in new.iter().filter(|(_, text)| text.starts_with('<')) {
        other.added.insert((*text).to_owned(), special(text));
    }
    let new: Vec<(u64, String)> =
        new.iter().map(|(row, text)| (*row, (*text).to_owned())).collect();
    files((dir.path(), &own), (other_dir.path(), &other), &new)
}

fn text(files: &UnionFiles, name: &str) -> Option<String> {
    let file = files.made.iter().find(|file| file.0 == name)?;
    Some(String::from_utf8(file.1.clone()).unwrap())
}

fn words(files: &UnionFiles) -> Vec<(u64, String)> {
    let read = tokenizer_json::read(text(files, FAST).unwrap().as_bytes()).unwrap();
    read.words().map(|(row, word)| (row, word.to_owned())).collect()
}

fn of(pairs: &[(u64, &str)]) -> Vec<(u64, String)> {
    pairs.iter().map(|(row, word)| (*row, (*word).to_owned())).collect()
}

#[test]
fn added_tokens_in_their_order_are_added_and_nothing_else_changes() {
    let config = r#"{"x": Infinity, "added_tokens_decoder": {"0": {"content": "<s>"}}}"#;
    let files = made(&[(FAST, BPE), (CONFIG, config)], &[(4, "<x>"), (5, "<y>")]).unwrap();
    let expected = BPE.replace(
        "\"special\": true}],",
        "\"special\": true},\n{\"id\":4,\"content\":\"<x>\",\"single_word\":false,\"lstrip\":true,\"rstrip\":false,\"normalized\":false,\"special\":true},\n{\"id\":5,\"content\":\"<y>\",\"single_word\":false,\"lstrip\":true,\"rstrip\":false,\"normalized\":false,\"special\":true}],",
    );
    assert_eq!(text(&files, FAST).unwrap(), expected);
    let config = text(&files, CONFIG).unwrap();
    let read = of_tokenizer_config(&config).unwrap();
    let ids: Vec<u64> = read.added.iter().map(|(row, _)| *row).collect();
    assert_eq!(ids, [0, 4, 5]);
    assert!(config.starts_with(r#"{"x": Infinity, "#));
    assert_eq!(files.left_out, ["added_tokens.json"]);
}

#[test]
fn ordinary_words_and_rows_out_of_order_are_the_models() {
    let files = made(&[(FAST, BPE)], &[(4, "c"), (5, "<y>")]).unwrap();
    assert_eq!(
        words(&files),
        of(&[(0, "<s>"), (1, "a"), (2, "b"), (3, "[PAD]"), (4, "c"), (5, "<y>")])
    );
    let json: serde_json::Value = serde_json::from_str(&text(&files, FAST).unwrap()).unwrap();
    assert_eq!(
        json["model"]["vocab"],
        json!({"<s>": 0, "a": 1, "b": 2, "[PAD]": 3, "c": 4, "<y>": 5})
    );
    assert!(files.left_out.contains(&"merges.txt".to_owned()));
    // A gap: the library would count on from 4.
    let files = made(&[(FAST, BPE)], &[(6, "<y>")]).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text(&files, FAST).unwrap()).unwrap();
    assert_eq!(json["model"]["vocab"]["<y>"], 6);
}

#[test]
fn pieces_of_a_unigram_model_have_the_scores_of_the_secondary() {
    let files = made(&[(FAST, UNIGRAM)], &[(4, "c"), (5, "d"), (6, "<y>")]).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text(&files, FAST).unwrap()).unwrap();
    assert_eq!(
        json["model"]["vocab"],
        json!([
            ["<unk>", 0.0],
            ["▁a", -1.5],
            ["b", -2.5],
            ["[PAD]", 0.0],
            ["c", -7.25],
            ["d", -2.5],
            ["<y>", 0.0]
        ])
    );
    let error = made(&[(FAST, UNIGRAM)], &[(5, "c")]).unwrap_err();
    assert_eq!(error.kind(), Kind::Data);
}

#[test]
fn without_tokenizer_json_added_tokens_go_into_the_config_and_words_nowhere() {
    let own = [("vocab.json", r#"{"a": 0}"#), ("added_tokens.json", r#"{"<s>": 1}"#)];
    let files = made(&own, &[(2, "<x>")]).unwrap();
    let read = of_tokenizer_config(&text(&files, CONFIG).unwrap()).unwrap();
    let found: Vec<(u64, String)> =
        read.added.into_iter().map(|(row, token)| (row, token.content)).collect();
    assert_eq!(found, of(&[(1, "<s>"), (2, "<x>")]));
    assert!(text(&files, FAST).is_none());
    assert_eq!(made(&own, &[(2, "c")]).unwrap_err().kind(), Kind::Data);
    assert!(made(&own, &[]).unwrap().made.is_empty());
}
