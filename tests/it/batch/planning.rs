//! What planning finds in a manifest, and what it prints of one.

use std::collections::BTreeSet;
use std::fs;

use serde_json::{Value, json};

use super::{errors, job, manifest, run};
use crate::support::{fixture, listing, tool};

/// 50 merges over the six fixtures in 12 pairings; merges 7, 20 and 33 are broken.
pub(super) fn fifty() -> Value {
    let mut merges = Vec::new();
    for number in 0..50 {
        let family = ["llama", "gpt2", "neox"][number % 3];
        let [primary, secondary] = [number / 3 % 2, number / 6 % 2]
            .map(|side| format!("{family}/{}", ["primary", "secondary"][side]));
        let t = f64::from(u32::try_from(number).unwrap()) / 50.0;
        merges.push(job(&primary, &secondary, &format!("out/{number}"), t));
    }
    merges[7]["dtpye"] = json!("float16");
    merges[20]["primary"] = json!("nowhere");
    merges[33]["secondary"] = json!(fixture("gpt2/secondary"));
    json!({ "defaults": { "no-fsync": true }, "merges": merges })
}

#[test]
fn all_errors_of_all_merges_are_listed_at_once_and_nothing_runs() {
    let dir = tempfile::tempdir().unwrap();
    let manifest = manifest(dir.path(), &fifty());
    let run = run(&manifest, &["--record", "record"]);
    let said = run.refused(2);
    let errors = errors(&said);
    assert_eq!(errors.len(), 3, "{said}");
    assert!(errors[0].contains("merge 7: merges[7].dtpye is no key"), "{said}");
    assert!(errors[1].contains("merge 20: cannot open model: ") && errors[1].contains("/nowhere"));
    assert!(errors[2].contains("merge 33: ") && errors[2].contains("gpt2/secondary"), "{said}");
    assert_eq!(listing(dir.path()), ["merges.json"]);
}

#[test]
fn outputs_that_clash_with_each_other_or_with_parents_are_errors_of_their_merges() {
    let dir = tempfile::tempdir().unwrap();
    let pair = |output: &str| job("neox/primary", "neox/secondary", output, 0.5);
    let mut user = pair("d");
    user["secondary"] = json!("c");
    let mut inside = pair("models/x/child");
    inside["primary"] = json!(fixture("neox/secondary"));
    let mut other = pair("e");
    other["primary"] = json!("models/x");
    fs::create_dir_all(dir.path().join("models/x")).unwrap();
    let merges = [pair("a"), pair("./a"), pair("b"), pair("b/c"), pair("c"), user, inside, other];
    let manifest = manifest(dir.path(), &json!({ "merges": merges }));
    let said = run(&manifest, &[]).refused(2);
    for words in [
        "merges 0, 1: two children have one output",
        "merges 2, 3: an output is inside another one",
        "merge 5: a parent is the child of another merge",
        "merge 6: output holds or is inside a parent of another merge",
        "merge 7: no checkpoint in this directory",
    ] {
        assert!(errors(&said).iter().any(|error| error.contains(words)), "{words}: {said}");
    }
    assert!(!errors(&said).iter().any(|error| error.contains("merge 4")), "{said}");
}

#[test]
fn more_than_the_disk_holds_in_all_is_refused_though_each_merge_would_fit() {
    let dir = tempfile::tempdir().unwrap();
    let stat = rustix::fs::statvfs(dir.path()).unwrap();
    let free = stat.f_bavail * stat.f_frsize;
    crate::build::hollow(&dir.path().join("big.bin"), free / 5);
    let merges: Vec<Value> = (0..3)
        .map(|i| json!({ "primary": "big.bin", "secondary": "big.bin", "output": i.to_string() }))
        .collect();
    let alone = manifest(dir.path(), &json!({ "merges": merges[..1] }));
    run(&alone, &["--dry-run"]).success();
    let all = manifest(dir.path(), &json!({ "merges": merges }));
    let said = run(&all, &[]).refused(1);
    assert!(said.contains("merges 0, 1, 2: not enough room"), "{said}");
    assert_eq!(listing(dir.path()), ["big.bin", "merges.json"]);
}

#[test]
fn the_schema_has_the_options_that_the_help_of_merge_lists() {
    let help = tool(["merge", "--help"]).success().stdout;
    let long = |line: &str| {
        let option = line.trim_start().starts_with('-').then(|| line.split("--").nth(1))??;
        let end = option.find(|c: char| c != '-' && !c.is_alphanumeric());
        Some(option[..end.unwrap_or(option.len())].to_owned())
    };
    let mut listed: BTreeSet<String> = help.lines().filter_map(long).collect();
    for name in ["help", "json", "verbose", "quiet", "no-progress"] {
        assert!(listed.remove(name), "{name}: {listed:?}");
    }
    listed.extend(["name", "primary", "secondary"].map(str::to_owned));
    let schema = tool(["batch", "--schema"]).success().json();
    let keys = |value: &Value| -> BTreeSet<String> {
        value["properties"].as_object().unwrap().keys().cloned().collect()
    };
    assert_eq!(keys(&schema["properties"]["merges"]["items"]), listed);
    listed.remove("name");
    assert_eq!(keys(&schema["properties"]["defaults"]), listed);
}

#[test]
fn the_manifest_of_the_documentation_is_one() {
    let page = include_str!("../../../docs/batch.md");
    let start = page.find("    {\n      \"defaults\"").expect("an example");
    let block = page[start..].lines().take_while(|line| line.starts_with("    "));
    let example: Value = serde_json::from_str(&block.collect::<String>()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(fixture("../../tests"), dir.path().join("tests")).unwrap();
    let manifest = manifest(dir.path(), &example);
    let merges = example["merges"].as_array().unwrap().len();
    assert_eq!(run(&manifest, &["--count"]).success().stdout, format!("{merges}\n"));
    run(&manifest, &["--dry-run"]).success();
    assert_eq!(listing(dir.path()), ["merges.json", "tests"]);
    run(&manifest, &["--jobs", "2"]).success();
    assert_eq!(listing(&dir.path().join("children")).len(), 4);
}

#[test]
fn the_index_of_a_merge_comes_from_the_option_or_the_scheduler() {
    let dir = tempfile::tempdir().unwrap();
    let pair = |output: &str| job("neox/primary", "neox/secondary", output, 0.5);
    let mut broken = pair("b");
    broken["secondary"] = json!("nowhere");
    let manifest = manifest(dir.path(), &json!({ "merges": [pair("a"), broken, pair("c")] }));
    run(&manifest, &["--index", "0"]).success();
    // The code is the merge's own.
    run(&manifest, &["--index", "1"]).refused(66);
    assert!(run(&manifest, &["--index", "3"]).refused(2).contains("below 3"));
    let auto = |name: &str, value: &str| {
        let output = super::batch(&manifest, &["--index", "auto"]).env(name, value).output();
        output.unwrap().status.code().unwrap()
    };
    assert_eq!(auto("SLURM_ARRAY_TASK_ID", "1"), 66);
    assert_eq!(auto("JOB_COMPLETION_INDEX", "2"), 0);
    assert_eq!(auto("SLURM_ARRAY_TASK_ID", "x"), 2);
    assert_eq!(auto("UNRELATED", "1"), 2);
    assert_eq!(listing(dir.path()), ["a", "c", "merges.json"]);
}
