//! Vocabularies that give one row to different words, and rows merged by word.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::build::{Dict, noise};
use crate::support::{fixture, merge, snapshot, tool, torch_model};

const CONFIG: &str = r#"{"model_type": "llama", "vocab_size": 0, "bos_token_id": null}"#;

/// A model with two values a row, whose tokenizer.json has these words; `<x>` and the like are added.
fn model(dir: &Path, name: &str, words: &[&str], first: f64) -> PathBuf {
    let rows = words.len() as u64;
    let values = |step: f64, count: u64| -> Vec<f64> {
        (0..count).map(|at| first + step * at as f64).collect()
    };
    let path = Dict::new()
        .f32("model.embed_tokens.weight", &[rows, 2], &values(1.0, 2 * rows))
        .f32("model.norm.weight", &[2], &values(3.0, 2))
        .f32("lm_head.weight", &[rows, 2], &values(-2.0, 2 * rows))
        .f32("lm_head.bias", &[rows], &values(0.5, rows))
        .f32("final_logits_bias", &[1, rows], &values(0.25, rows))
        .model(dir, name, &CONFIG.replace("\"vocab_size\": 0", &format!("\"vocab_size\": {rows}")));
    let (mut vocab, mut added) = (json!({}), Vec::new());
    for (row, word) in words.iter().enumerate() {
        match word.starts_with('<') {
            true => added.push(json!({"id": row, "content": word, "special": true})),
            false => vocab[*word] = json!(row),
        }
    }
    let tokenizer =
        json!({"added_tokens": added, "model": {"type": "BPE", "vocab": vocab, "merges": []}});
    fs::write(path.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    path
}

/// Words and rows of a child's tokenizer.
fn words(child: &Path) -> Vec<(String, u64)> {
    let text = fs::read_to_string(child.join("tokenizer.json")).unwrap();
    let file: Value = serde_json::from_str(&text).unwrap();
    let vocab = file["model"]["vocab"].as_object().unwrap();
    let own = vocab.iter().map(|(word, row)| (word.clone(), row.as_u64().unwrap()));
    let added = file["added_tokens"].as_array().unwrap().iter();
    let added = added.map(|token| {
        (token["content"].as_str().unwrap().to_owned(), token["id"].as_u64().unwrap())
    });
    let mut all: Vec<(String, u64)> = own.chain(added).collect();
    all.sort_by_key(|(_, row)| *row);
    all.dedup();
    all
}

#[test]
fn rows_of_one_word_are_merged_wherever_they_are_and_missing_ones_made() {
    let dir = tempfile::tempdir().unwrap();
    let a = model(dir.path(), "a", &["a", "b", "<p>"], 1.0);
    let b = model(dir.path(), "b", &["b", "a", "<x>", "<y>"], 100.0);
    let halfway = ["--method", "linear", "--extend", "zero", "--vocab"];
    let values = |child: &Path, name: &str| torch_model(child)[name].values();
    // By hand: a is rows 0 and 1, b rows 1 and 0; what is missing is zero.
    let union = dir.path().join("union");
    merge(&a, &b, &union, &[&halfway[..], &["union"]].concat()).success();
    let expected = [
        (1.0 + 102.0) / 2.0,
        (2.0 + 103.0) / 2.0,
        (3.0 + 100.0) / 2.0,
        (4.0 + 101.0) / 2.0,
        5.0 / 2.0,
        6.0 / 2.0,
        104.0 / 2.0,
        105.0 / 2.0,
        106.0 / 2.0,
        107.0 / 2.0,
    ];
    assert_eq!(values(&union, "model.embed_tokens.weight"), expected);
    let bias = [(1.0 + 100.5) / 2.0, (1.5 + 100.0) / 2.0, 2.0 / 2.0, 101.0 / 2.0, 101.5 / 2.0];
    assert_eq!(values(&union, "lm_head.bias"), bias);
    let logits = [(1.0 + 100.25) / 2.0, (1.25 + 100.0) / 2.0, 1.5 / 2.0, 100.5 / 2.0, 100.75 / 2.0];
    assert_eq!(values(&union, "final_logits_bias"), logits);
    assert_eq!(torch_model(&union)["final_logits_bias"].shape, [1, 5]);
    assert_eq!(values(&union, "model.norm.weight"), [101.0 / 2.0, 107.0 / 2.0]);
    let named = |rows: &[(&str, u64)]| -> Vec<(String, u64)> {
        rows.iter().map(|(word, row)| ((*word).to_owned(), *row)).collect()
    };
    let both = named(&[("a", 0), ("b", 1), ("<p>", 2), ("<x>", 3), ("<y>", 4)]);
    assert_eq!(words(&union), both);
    let config = fs::read_to_string(union.join("config.json")).unwrap();
    assert!(config.contains("\"vocab_size\": 5"), "{config}");

    let primary = dir.path().join("primary");
    merge(&a, &b, &primary, &[&halfway[..], &["primary"]].concat()).success();
    assert_eq!(values(&primary, "model.embed_tokens.weight"), expected[..6]);
    assert_eq!(values(&primary, "lm_head.bias"), bias[..3]);
    assert_eq!(words(&primary), both[..3]);

    // Inherited, they are the other parent's own.
    let own = dir.path().join("own");
    merge(&a, &b, &own, &["--method", "linear", "--extend", "inherit", "--vocab", "union"])
        .success();
    let found = values(&own, "model.embed_tokens.weight");
    assert_eq!(found[..4], expected[..4]);
    assert_eq!(found[4..], [5.0, 6.0, 104.0, 105.0, 106.0, 107.0]);
}

#[test]
fn a_clash_is_refused_with_examples_and_rows_goes_on_as_if_no_words_were_known() {
    let dir = tempfile::tempdir().unwrap();
    let a = model(dir.path(), "a", &["a", "b", "<p>"], 1.0);
    let b = model(dir.path(), "b", &["a", "b", "<x>"], 100.0);
    let said = merge(&a, &b, &dir.path().join("no"), &[]).refused(65);
    assert!(said.contains(r#"1 difference: 2: "<p>" and "<x>""#), "{said}");
    for way in ["--vocab union", "--vocab primary", "--vocab rows"] {
        assert!(said.contains(way), "{said}");
    }
    assert!(!dir.path().join("no").exists());
    let (rows, blind) = (dir.path().join("rows"), dir.path().join("blind"));
    merge(&a, &b, &rows, &["--vocab", "rows"]).success();
    fs::remove_file(b.join("tokenizer.json")).unwrap();
    merge(&a, &b, &blind, &[]).success();
    let weights = |dir: &Path| fs::read(dir.join("pytorch_model.bin")).unwrap();
    assert_eq!(weights(&rows), weights(&blind));
    // Without the secondary's words there are none to go by.
    let said = merge(&a, &b, &dir.path().join("no"), &["--vocab", "union"]).refused(65);
    assert!(said.contains("the secondary has no tokenizer files"), "{said}");
}

#[test]
fn by_word_is_by_row_where_every_word_is_in_its_row() {
    let dir = tempfile::tempdir().unwrap();
    let [a, b] = ["llama/primary", "llama/secondary"].map(fixture);
    for (name, a, b) in [("ab", &a, &b), ("ba", &b, &a)] {
        let plain = dir.path().join(format!("{name}-plain"));
        merge(a, b, &plain, &[]).success();
        let union = dir.path().join(format!("{name}-union"));
        merge(a, b, &union, &["--vocab", "union"]).success();
        let weights = |dir: &Path| {
            let files = snapshot(dir).into_iter();
            files
                .filter(|(path, _)| path.extension().is_some_and(|end| end == "bin"))
                .collect::<Vec<_>>()
        };
        assert_eq!(weights(&plain), weights(&union), "{name}");
        assert_eq!(words(&plain), words(&union), "{name}");
    }
}

/// A model of 700 words in several pieces, and the same one with words and rows in another order.
pub(crate) fn reordered(dir: &Path) -> [PathBuf; 2] {
    const ROWS: u64 = 700;
    const WIDTH: usize = 300;
    let values = noise(ROWS as usize * WIDTH, 7);
    let bias = noise(ROWS as usize, 8);
    let orders: [Vec<u64>; 2] =
        [(0..ROWS).collect(), (0..ROWS).map(|row| row * 11 % ROWS).collect()];
    let named = orders.iter().zip(["a", "b"]);
    let made = named.map(|(order, name)| {
        let rows = |values: &[f64], width: usize| -> Vec<f64> {
            let row = |row: &u64| values[*row as usize * width..][..width].to_vec();
            order.iter().flat_map(row).collect()
        };
        let path = Dict::new()
            .f32("model.embed_tokens.weight", &[ROWS, WIDTH as u64], &rows(&values, WIDTH))
            .noise("model.norm.weight", &[300], 9)
            .f32("lm_head.bias", &[ROWS], &rows(&bias, 1))
            .tied("lm_head.weight", "model.embed_tokens.weight")
            .model(
                dir,
                name,
                r#"{"model_type": "llama", "vocab_size": 700, "tie_word_embeddings": true}"#,
            );
        let vocab: serde_json::Map<String, Value> =
            order.iter().zip(0u64..).map(|(word, row)| (format!("w{word}"), json!(row))).collect();
        let tokenizer = json!({"added_tokens": [], "model": {"type": "WordLevel", "vocab": vocab}});
        fs::write(path.join("tokenizer.json"), tokenizer.to_string()).unwrap();
        path
    });
    let made: Vec<PathBuf> = made.collect();
    made.try_into().unwrap()
}

#[test]
fn a_model_merged_with_its_own_rows_in_another_order_is_itself() {
    let dir = tempfile::tempdir().unwrap();
    let [a, b] = reordered(dir.path());
    for (way, threads) in [("union", "1"), ("primary", "3")] {
        let child = dir.path().join(way);
        merge(&a, &b, &child, &["-t", "0.3", "--vocab", way, "--threads", threads]).success();
        assert_eq!(torch_model(&child), torch_model(&a), "{way}");
    }
}

#[test]
fn a_damaged_parent_is_refused_though_its_rows_are_read_in_another_order() {
    let dir = tempfile::tempdir().unwrap();
    let [a, b] = reordered(dir.path());
    let path = b.join("pytorch_model.bin");
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    let said = merge(&a, &b, &dir.path().join("child"), &["--vocab", "union"]).refused(65);
    assert!(said.contains("is damaged"), "{said}");
}

#[test]
fn of_two_tokenizers_of_one_length_the_child_has_that_with_more_words() {
    let dir = tempfile::tempdir().unwrap();
    let [a, b] = [("a", ["a", "b"]), ("b", ["a", "b"])]
        .map(|(name, words)| model(dir.path(), name, &words, 1.0));
    // Padded: the second row has no word in the primary.
    let file = a.join("tokenizer.json");
    let text = fs::read_to_string(&file).unwrap().replace(r#","b":1"#, "");
    fs::write(&file, text).unwrap();
    let child = dir.path().join("child");
    merge(&a, &b, &child, &[]).success();
    assert_eq!(words(&child), words(&b));
}

#[test]
fn a_plan_tells_the_words_and_find_the_pairs_that_differ() {
    let dir = tempfile::tempdir().unwrap();
    let a = model(dir.path(), "a", &["a", "b", "<p>"], 1.0);
    let b = model(dir.path(), "b", &["a", "b", "<x>"], 100.0);
    let parents = [a.as_os_str(), b.as_os_str()];
    let options = ["--vocab", "union", "--json"].map(std::ffi::OsStr::new);
    let words = ["plan".as_ref()].into_iter().chain(parents).chain(options);
    let plan = tool(words).success().json();
    assert_eq!(plan["plan"]["words"]["relation"], "different");
    assert_eq!(plan["plan"]["words"]["examples"], json!([r#"2: "<p>" and "<x>""#]));
    let by_word = &plan["plan"]["by_word"];
    let counts = ["rows", "kept", "matched", "moved", "added", "left_out"]
        .map(|key| by_word[key].as_u64().unwrap());
    assert_eq!(counts, [4, 3, 2, 0, 1, 0]);
    let found = tool(["find".as_ref(), dir.path().as_os_str()]).success().stdout;
    assert!(found.contains("1 pair with one row for different words"), "{found}");
}
