//! t by name and by layer: `--t-for`, and what a child is known by then.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::batch::{manifest, results, run as run_batch};
use crate::midway::{Midway, TENSORS, parents, tool_in};
use crate::support::{child_bytes, fixture, merge, parent_bytes, snapshot, tool};

const WORK: &str = ".child.partial";

/// Tensors of a merge by their names, each with its bytes.
fn made(parents: &[&Path; 2], out: &Path, options: &[&str]) -> BTreeMap<String, Vec<u8>> {
    merge(parents[0], parents[1], out, options).success();
    child_bytes(out)
}

fn provenance(child: &Path) -> Value {
    serde_json::from_slice(&fs::read(child.join("slerp_merge.json")).unwrap()).unwrap()
}

#[test]
fn only_what_a_filter_fits_is_merged_where_t_is_0() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (fixture("gpt2/primary"), fixture("gpt2/secondary"));
    let options = ["--t-for", "mlp=0.5", "-t", "0"];
    let child = made(&[&a, &b], &dir.path().join("child"), &options);
    let half = made(&[&a, &b], &dir.path().join("half"), &[]);
    let primary = parent_bytes(&a);
    let mut merged = 0;
    for (name, bytes) in &child {
        let is_mlp = name.contains("mlp");
        merged += usize::from(is_mlp);
        assert!(*bytes == if is_mlp { &half[name] } else { &primary[name] }.as_slice(), "{name}");
    }
    assert_eq!(merged, 8);
}

#[test]
fn a_head_at_0_has_the_primarys_bytes_and_nothing_else_has() {
    let dir = tempfile::tempdir().unwrap();
    // The one with more rows first: nothing of it is extended.
    let (a, b) = (fixture("llama/secondary"), fixture("llama/primary"));
    let child = made(&[&a, &b], &dir.path().join("child"), &["--t-for", "lm_head=0"]);
    let half = made(&[&a, &b], &dir.path().join("half"), &[]);
    let primary = parent_bytes(&a);
    assert!(child["lm_head.weight"] == primary["lm_head.weight"]);
    for (name, bytes) in child.iter().filter(|(name, _)| *name != "lm_head.weight") {
        assert!(*bytes == half[name] && *bytes != primary[name], "{name}");
    }
    // The rows of the other order are extended, and t = 1 is the other parent to the byte.
    let child = made(&[&b, &a], &dir.path().join("other"), &["--t-for", "lm_head=1"]);
    assert!(child["lm_head.weight"] == primary["lm_head.weight"]);
}

#[test]
fn a_list_is_spread_over_the_layers() {
    let dir = tempfile::tempdir().unwrap();
    parents(dir.path());
    // 40 layers, numbers 0 to 39: layer 13 stands at a third, layer 26 at two thirds.
    let words = ["merge", "a", "b", "-o", "child", "--no-fsync", "--t-for", "layer=0,1,0.25,1"];
    tool_in(dir.path(), &words).success();
    let child = child_bytes(&dir.path().join("child"));
    let primary = parent_bytes(&dir.path().join("a"));
    let secondary = parent_bytes(&dir.path().join("b"));
    assert!(child["layer.0.w"] == primary["layer.0.w"]);
    assert!(child["layer.13.w"] == secondary["layer.13.w"]);
    assert!(child["layer.39.w"] == secondary["layer.39.w"]);
    tool_in(dir.path(), &["merge", "a", "b", "-o", "quarter", "--no-fsync", "-t", "0.25"])
        .success();
    let quarter = child_bytes(&dir.path().join("quarter"));
    assert!(child["layer.26.w"] == quarter["layer.26.w"]);
    let told = provenance(&dir.path().join("child"));
    assert_eq!(told["t_for"], json!([{"filter": "layer", "t": [0.0, 1.0, 0.25, 1.0]}]));
    let t: Vec<f64> = told["tensors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|tensor| tensor["t"].as_f64().unwrap())
        .collect();
    assert_eq!(t.len(), 40);
    // x = 1/39 of the way and three times as far along the list.
    for (layer, expected) in
        [(1, 3.0 / 39.0), (14, 1.0 - 0.75 / 13.0), (33, 0.25 + 0.75 * 7.0 / 13.0)]
    {
        assert!((t[layer] - expected).abs() < 1e-12, "{layer}: {}", t[layer]);
    }
}

#[test]
fn the_plan_has_t_of_every_tensor() {
    let (a, b) = (fixture("llama/primary"), fixture("llama/secondary"));
    let (a, b) = (a.to_str().unwrap(), b.to_str().unwrap());
    let options =
        ["plan", a, b, "-t", "0.1,0.2", "--t-for", "self_attn=0.25,1", "--t-for", "mlp=0.3"];
    let plan = tool(options.into_iter().chain(["--json"])).success().json();
    for storage in plan["plan"]["storages"].as_array().unwrap() {
        let name = storage["name"].as_str().unwrap();
        let expected = match (name.contains("self_attn"), name.contains("mlp")) {
            (true, _) if name.contains(".0.") => json!([0.25, 0.25]),
            (true, _) => json!([1.0, 1.0]),
            (_, true) => json!([0.3, 0.3]),
            _ => json!([0.1, 0.2]),
        };
        assert_eq!(storage["t"], expected, "{name}");
    }
    let table = tool(options).success().stdout;
    let line = |piece: &str| table.lines().find(|line| line.contains(piece)).unwrap();
    assert!(table.lines().next().unwrap().contains("action"), "{table}");
    assert!(line("layers.0.self_attn.q").contains("  0.25, 0.25  "), "{table}");
    assert!(line("model.norm").contains("  0.1, 0.2  "), "{table}");
}

#[test]
fn a_sweep_with_a_filter_is_one_pass_and_each_child_that_of_a_merge_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    parents(dir.path());
    let base = ["merge", "a", "b", "--no-fsync", "--json", "--t-for", "layer.1=0.9,0.2"];
    let all = [base.as_slice(), &["-t", "0,0.5,1", "-o", "all-{t}"]].concat();
    let read = |run: &crate::support::Run| run.json()["bytes_read"].as_u64().unwrap();
    let together = read(&tool_in(dir.path(), &all).success());
    for t in ["0", "0.5", "1"] {
        let own = format!("own-{t}");
        let own = [base.as_slice(), &["-t", t, "-o", &own]].concat();
        assert_eq!(read(&tool_in(dir.path(), &own).success()), together);
        let [own, of_all] =
            ["own", "all"].map(|name| snapshot(&dir.path().join(format!("{name}-{t}"))));
        assert!(own == of_all, "{t}");
    }
}

#[test]
fn a_killed_merge_is_resumed_by_its_own_schedule_alone() {
    let dir = tempfile::tempdir().unwrap();
    parents(dir.path());
    let schedule = ["--t-for", "layer.3=0.7", "--t-for", "layer=0,0.5,1"];
    for tensors in [1, 12, 28] {
        let options = [&["-o", "child"], schedule.as_slice()].concat();
        Midway::begin(dir.path(), &options, WORK, tensors).kill();
        let words = ["merge", "a", "b", "-o", "child", "--resume", "-v"];
        let other = [words.as_slice(), &["--t-for", "layer=0,0.5,1"]].concat();
        let said = tool_in(dir.path(), &other);
        assert_ne!(said.code, Some(0), "{}", said.stderr);
        let said = tool_in(dir.path(), &[words.as_slice(), &schedule].concat()).success().stderr;
        assert!(said.contains("resuming: "), "{said}");
        let resumed = snapshot(&dir.path().join("child"));
        fs::remove_dir_all(dir.path().join("child")).unwrap();
        let anew = [&["merge", "a", "b", "-o", "child"], schedule.as_slice()].concat();
        tool_in(dir.path(), &anew).success();
        assert!(snapshot(&dir.path().join("child")) == resumed, "{tensors} of {TENSORS}");
        fs::remove_dir_all(dir.path().join("child")).unwrap();
    }
}

#[test]
fn a_batch_with_schedules_is_one_sweep_whose_children_are_known_again() {
    let dir = tempfile::tempdir().unwrap();
    parents(dir.path());
    let merges = |second: Value| {
        json!({
            "defaults": {"primary": "a", "secondary": "b", "output": "{name}"},
            "merges": [
                {"name": "x", "t-for": {"layer.1": [0, 1], "*": 0.3}},
                {"name": "y", "t": 0.4, "t-for": second},
                {"name": "z", "t": 0.4},
            ],
        })
    };
    let path = manifest(dir.path(), &merges(json!({"layer.2": 0.5})));
    let first = run_batch(&path, &["--json"]);
    assert_eq!(results(&first.success()), ["merged"; 3]);
    for (name, options) in [
        ("x", &["--t-for", "layer.1=0,1", "--t-for", "*=0.3"][..]),
        ("y", &["-t", "0.4", "--t-for", "layer.2=0.5"]),
        ("z", &["-t", "0.4"]),
    ] {
        let own = [&["merge", "a", "b", "-o", "own", "--overwrite"], options].concat();
        tool_in(dir.path(), &own).success();
        let [own, of_batch] = ["own", name].map(|name| snapshot(&dir.path().join(name)));
        assert!(own == of_batch, "{name}");
    }
    let again = run_batch(&path, &["--json"]).success();
    assert_eq!(results(&again), ["present"; 3]);
    let sweep = &again.json()["jobs"][0];
    assert_eq!(sweep["result"], "present");
    let path = manifest(dir.path(), &merges(json!({"layer.2": 0.6})));
    let other = run_batch(&path, &["--json", "--keep-going"]);
    assert_eq!(results(&other), ["present", "refused", "present"]);
    assert!(other.stderr.contains("another t for some tensors"), "{}", other.stderr);
}

#[test]
fn slips_of_the_pen_are_usage_errors() {
    let (a, b) = (fixture("gpt2/primary"), fixture("gpt2/secondary"));
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("child");
    for (options, said) in [
        (&["--t-for", "mpl=0.5"][..], "`mpl`"),
        (&["--t-for", "mlp=1.5"], "1.5"),
        (&["--t-for", "mlp"], "FILTER=T"),
        (&["--t-for", "=1"], "FILTER=T"),
        (&["--t-for", "mlp=0,,1"], "got ``"),
        (&["-t", "0.1,0.2", "--t-for", "*=1", "-o", "x-{t}"], "cannot be used multiple times"),
    ] {
        let stderr = merge(&a, &b, &out, options).refused(2);
        assert!(stderr.contains(said), "{stderr}");
    }
    let sweep = dir.path().join("child-{t}");
    let stderr = merge(&a, &b, &sweep, &["-t", "0.1,0.2", "--t-for", "*=1"]).refused(2);
    assert!(stderr.contains("two children have one output"), "{stderr}");
}
