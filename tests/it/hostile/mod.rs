//! Hostile files: every case of the corpus is refused by its rule, nothing in it is run, and what is
//! good is not refused.

mod corpus;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use llm_slerp_merge::checkpoint::Checkpoint;
use llm_slerp_merge::{Error, Result};
use serde_json::Value;

use crate::build::Dict;
use crate::support::{command, fixture, listing, merge_here};
use corpus::{CANARY, Case, Expect, cases};

/// Longest message, in bytes.
const MOST_BYTES: usize = 1024;

/// Cases that the binary looks at in one go.
const AT_ONCE: usize = 40;

/// Runs `look` on every item on all cores and gathers what it complains of.
fn complaints<T: Sync>(items: &[T], look: impl Fn(&T) -> Vec<String> + Sync) -> Vec<String> {
    let next = AtomicUsize::new(0);
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        let work = || {
            let mut found = Vec::new();
            while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                found.extend(look(item));
            }
            found
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    })
}

/// What is wrong with an error, or with there being none.
fn judge(case: &Case, error: Option<&Error>) -> Option<String> {
    let Some(error) = error else { return Some(format!("{}: accepted: {}", case.name, case.what)) };
    let said = error.to_string();
    let rule = error.rule().map(|rule| format!("{rule:?}"));
    let control = |character: char| character.is_control() && character != '\n';
    let wrong = if error.kind().exit_code() != case.code {
        "another exit code"
    } else if case.rule.is_some() && rule != case.rule {
        "another rule"
    } else if !said.contains(&case.says) && !error.hint().unwrap_or("").contains(&case.says) {
        "other words"
    } else if said.len() > MOST_BYTES || said.chars().any(control) {
        "an unsafe message"
    } else if case.expect == Expect::Refused && said.contains('\n') {
        "a message of several lines"
    } else {
        return None;
    };
    Some(format!("{}: {wrong}: {rule:?}: {said}", case.name))
}

/// Merges without flushing; the child is removed again.
fn merged(primary: &Path, secondary: &Path, child: &Path) -> Result<()> {
    merge_here(primary, secondary, child)?;
    fs::remove_dir_all(child).unwrap();
    Ok(())
}

#[test]
fn the_corpus_covers_every_row() {
    let cases = cases();
    assert!(cases.iter().filter(|case| case.expect != Expect::Ok).count() >= 300);
    let numbered = |letter: &'static str, last: usize| {
        (1..=last).map(move |number| format!("{letter}{number}"))
    };
    let named = ["L1", "S", "index", "names", "links"].map(str::to_owned);
    for row in numbered("P", 13).chain(numbered("Z", 16)).chain(named) {
        assert!(cases.iter().any(|case| case.row == row), "no case of row {row}");
    }
    // Nothing lies in the folder that no case opens.
    let kept = listing(&fixture("hostile/files"));
    assert!(kept.iter().all(|name| cases.iter().any(|case| case.name == *name)));
}

#[test]
fn every_hostile_file_is_refused_by_its_rule() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("out");
    fs::create_dir(&out).unwrap();
    let good = Dict::new().noise("w", &[2, 3], 1).bare(directory.path(), "good");
    let found = complaints(&cases(), |case| {
        let model = case.make(directory.path());
        let child = out.join(&case.name);
        let opened = Checkpoint::open(&model).err();
        let [first, second] =
            [merged(&model, &good, &child).err(), merged(&good, &model, &child).err()];
        let itself = || merged(&model, &model, &child).err();
        match case.expect {
            Expect::Refused => {
                let errors = [opened, first, second];
                errors.iter().find_map(|error| judge(case, error.as_ref())).into_iter().collect()
            }
            Expect::Merge | Expect::Data => {
                let wrong = opened.map(|error| format!("{}: not opened: {error}", case.name));
                wrong.into_iter().chain(judge(case, itself().as_ref())).collect()
            }
            Expect::Ok => {
                let errors = [opened, itself()].into_iter().flatten();
                errors.map(|error| format!("{}: refused: {error}", case.name)).collect()
            }
        }
    });
    assert!(found.is_empty(), "{} of them:\n{}", found.len(), found.join("\n"));
    assert!(listing(&out).is_empty(), "something was left at the output");
    assert_no_canary(directory.path());
}

#[test]
fn the_program_finds_every_hostile_file_and_runs_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let cases = cases();
    let models: Vec<(&Case, PathBuf)> =
        cases.iter().map(|case| (case, case.make(directory.path()))).collect();
    let chunks: Vec<_> = models.chunks(AT_ONCE).collect();
    let found = complaints(&chunks, |chunk| {
        let mut verify = command();
        verify.args(["verify", "--json", "--threads", "1"]).current_dir(directory.path());
        let output = verify.args(chunk.iter().map(|model| &model.1)).output().unwrap();
        let value: Value = match serde_json::from_slice(&output.stdout) {
            Ok(value) => value,
            Err(_) => return vec![String::from_utf8_lossy(&output.stderr).into_owned()],
        };
        let pairs = chunk.iter().zip(value["models"].as_array().unwrap());
        pairs.filter_map(|((case, _), model)| judge_findings(case, model)).collect()
    });
    assert!(found.is_empty(), "{} of them:\n{}", found.len(), found.join("\n"));
    assert_no_canary(directory.path());
}

/// What is wrong with what `verify` found.
fn judge_findings(case: &Case, model: &Value) -> Option<String> {
    let whole = matches!(case.expect, Expect::Ok | Expect::Merge);
    let findings = model["findings"].as_array().unwrap();
    let errors: Vec<&str> = findings
        .iter()
        .filter(|finding| finding["severity"] == "error")
        .map(|finding| finding["message"].as_str().unwrap())
        .collect();
    let control = |text: &&str| text.chars().any(char::is_control) || text.len() > MOST_BYTES;
    if errors.is_empty() != whole {
        return Some(format!("{}: {}: found {errors:?}", case.name, case.what));
    }
    errors.iter().find(|text| control(text)).map(|text| format!("{}: {text:?}", case.name))
}

#[test]
fn one_of_every_row_ends_the_program_with_its_code() {
    let directory = tempfile::tempdir().unwrap();
    let good = Dict::new().noise("w", &[2, 3], 1).bare(directory.path(), "good");
    let out = directory.path().join("out");
    let mut rows = std::collections::BTreeMap::new();
    for case in cases().into_iter().filter(|case| case.expect == Expect::Refused && case.is_kept())
    {
        rows.entry((case.row.clone(), case.rule.clone())).or_insert(case);
    }
    let chosen: Vec<Case> = rows.into_values().collect();
    assert!(chosen.len() > 30, "{}", chosen.len());
    let found = complaints(&chosen, |case| {
        let mut merge = command();
        merge.arg("merge").args([&case.make(directory.path()), &good]).arg("-o").arg(&out);
        let output = merge.current_dir(directory.path()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        let right = output.status.code() == Some(i32::from(case.code)) && said.contains(&case.says);
        let wrong = (!right).then(|| format!("{}: {:?}: {said}", case.name, output.status.code()));
        wrong.into_iter().collect()
    });
    assert!(found.is_empty(), "{}", found.join("\n"));
    assert!(!out.exists());
    assert_no_canary(directory.path());
}

/// A payload that ran would have touched the canary where the tool runs.
fn assert_no_canary(directory: &Path) {
    for place in [directory, Path::new("."), Path::new(env!("CARGO_MANIFEST_DIR"))] {
        assert!(!place.join(CANARY).exists(), "a payload ran");
    }
}
