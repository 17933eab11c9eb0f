//! The children of the fixtures, against those worked out in float64.

use std::fs;
use std::path::Path;

use llm_slerp_merge::checkpoint::Checkpoint;
use serde_json::Value;
use tch::Kind;

use crate::support::{
    fixture, fixture_json, float32_parent, listing, merge, tool, torch_file, torch_model,
    weight_files,
};
use crate::ulp::{FLOAT32_UNITS, assert_close, distance, distance_by_parents, rounded, unit};

/// The share of elements that may fall on the other side of a rounding border: the tool computes
/// in float32, the fixtures in float64.
const BORDER_SHARE: f64 = 0.01;

fn cases(with_files: bool) -> Vec<Value> {
    let Value::Array(mut cases) = fixture_json("expected/cases.json") else {
        panic!("cases.json is no list");
    };
    cases.retain(|case| case.get("files").is_some() == with_files);
    assert!(cases.len() >= 4);
    cases
}

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().unwrap()
}

fn run(case: &Value, out: &Path) {
    let options: Vec<&str> =
        case["options"].as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
    let [primary, secondary] = ["primary", "secondary"].map(|key| fixture(text(case, key)));
    merge(&primary, &secondary, out, &options).success();
}

#[test]
fn children_are_those_of_transformers_up_to_one_unit_in_the_last_place() {
    let dir = tempfile::tempdir().unwrap();
    for case in cases(true) {
        let name = text(&case, "name");
        let (out, expected) = (dir.path().join(name), fixture(text(&case, "directory")));
        run(&case, &out);
        assert_eq!(weight_files(&out), listing(&expected), "{name}");
        for file in case["files"].as_array().unwrap() {
            let path = out.join(text(file, "name"));
            let bytes = fs::metadata(&path).unwrap().len();
            assert_eq!(Some(bytes), file["bytes"].as_u64(), "{}", path.display());
        }
        let (mut differing, mut elements) = (0, 0);
        let parents = match name {
            "gpt2_t0.3" => {
                ["primary", "secondary"].map(|side| float32_parent(&fixture(text(&case, side))))
            }
            _ => Default::default(),
        };
        for file in listing(&expected) {
            if file.ends_with(".json") {
                let [ours, theirs] =
                    [&out, &expected].map(|dir| fs::read(dir.join(&file)).unwrap());
                assert_eq!(ours, theirs, "{name}");
                continue;
            }
            let [ours, theirs] = [&out, &expected].map(|dir| torch_file(&dir.join(&file)));
            assert_eq!(ours.len(), theirs.len());
            for ((our_name, a), (their_name, b)) in ours.iter().zip(&theirs) {
                assert_eq!(our_name, their_name, "{name}: {file}");
                if a.kind == Kind::Float {
                    let parents = parents.each_ref().map(|parent| &parent[our_name]);
                    let apart = distance_by_parents(a, b, parents);
                    assert!(apart <= FLOAT32_UNITS, "{name}: {our_name} is {apart} units away");
                    continue;
                }
                // The shorter parent's rows end at 512.
                let own_rows = if a.shape[0] == 520 { 512 } else { i64::MAX };
                assert_close(a, b, own_rows, &format!("{name}: {our_name}"));
                differing += distance(a, b).1;
                elements += a.values().len();
            }
        }
        let share = differing as f64 / elements.max(1) as f64;
        assert!(share <= BORDER_SHARE, "{name} differs in {share} of its elements");
    }
}

#[test]
fn outside_the_values_only_checksums_and_the_id_differ_from_the_file_of_transformers() {
    let dir = tempfile::tempdir().unwrap();
    for case in cases(true) {
        let (out, expected) =
            (dir.path().join(text(&case, "name")), fixture(text(&case, "directory")));
        run(&case, &out);
        for file in weight_files(&out).into_iter().filter(|name| name.ends_with(".bin")) {
            let [ours, theirs] = [&out, &expected].map(|dir| fs::read(dir.join(&file)).unwrap());
            let storages = Checkpoint::open(&expected.join(&file)).unwrap().inventory.storages;
            let in_values = |place: u64| {
                storages.iter().any(|s| place.wrapping_sub(s.file_offset) < s.record_bytes)
            };
            let differing = ours.iter().zip(&theirs).enumerate().filter(|(_, (a, b))| a != b);
            let outside = differing.filter(|(place, _)| !in_values(*place as u64)).count();
            // CRC-32 of each storage and of the id, in descriptor and directory; the id's 40 digits.
            assert!(outside <= 8 * (storages.len() + 1) + 40, "{file}: {outside} bytes");
        }
    }
}

#[test]
fn every_way_to_extend_and_the_linear_method_give_the_expected_values() {
    let dir = tempfile::tempdir().unwrap();
    for case in cases(false) {
        let name = text(&case, "name");
        let out = dir.path().join(name);
        run(&case, &out);
        let child = torch_model(&out);
        let expected = case["tensors"].as_object().unwrap();
        assert_eq!(child.len(), expected.len(), "{name}");
        for (tensor, facts) in expected {
            let (loaded, values) = (&child[tensor], child[tensor].values());
            assert_eq!(serde_json::json!(loaded.shape), facts["shape"], "{name}: {tensor}");
            let every = usize::try_from(facts["every"].as_u64().unwrap()).unwrap();
            let numbers = |key: &str| -> Vec<f64> {
                facts[key].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
            };
            for (value, expected) in values.iter().step_by(every).zip(numbers("values")) {
                assert!(
                    (value - expected).abs() <= unit(loaded.kind, expected),
                    "{name}: {tensor}: {value} for {expected}"
                );
            }
            let close = |found: f64, key: &str, error_of_one: &dyn Fn(f64) -> f64| {
                let error: f64 = values.iter().map(|value| error_of_one(*value)).sum();
                let expected = facts[key].as_f64().unwrap();
                assert!(
                    (found - expected).abs() <= BORDER_SHARE * error + 1e-9 * expected.abs(),
                    "{name}: {tensor}: {key} is {found}, expected {expected}"
                );
            };
            close(values.iter().sum(), "sum", &|value| unit(loaded.kind, value));
            close(values.iter().map(|v| v * v).sum(), "square_sum", &|value| {
                2.0 * value.abs() * unit(loaded.kind, value)
            });
        }
    }
}

#[test]
fn linear_at_a_half_is_the_mean_of_the_parents() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("child");
    let parents = ["gpt2/primary", "gpt2/secondary"].map(fixture);
    merge(&parents[0], &parents[1], &out, &["--method", "linear"]).success();
    let [a, b] = parents.map(|path| float32_parent(&path));
    for (name, tensor) in torch_model(&out) {
        let (a, b) = (a[&name].values(), b[&name].values());
        let means: Vec<f64> = a.iter().zip(&b).map(|(a, b)| f64::midpoint(*a, *b)).collect();
        assert_eq!(tensor, rounded(&means, &tensor.shape, Kind::Float), "{name}");
    }
}

#[test]
fn the_config_is_the_primarys_with_the_childs_vocabulary() {
    let dir = tempfile::tempdir().unwrap();
    for (primary, secondary, rows) in [
        ("llama/primary", "llama/secondary", ("512", "520")),
        ("llama/secondary", "llama/primary", ("520", "520")),
        ("gpt2/primary", "gpt2/secondary", ("512", "512")),
        ("neox/primary", "neox/secondary", ("512", "512")),
    ] {
        let out = dir.path().join(primary);
        merge(&fixture(primary), &fixture(secondary), &out, &[]).success();
        let theirs = fs::read_to_string(fixture(primary).join("config.json")).unwrap();
        let vocab_size = |rows: &str| format!("\"vocab_size\": {rows}");
        assert!(theirs.contains(&vocab_size(rows.0)));
        let expected = theirs.replace(&vocab_size(rows.0), &vocab_size(rows.1));
        assert_eq!(fs::read_to_string(out.join("config.json")).unwrap(), expected);
        let [ours, theirs] = [&out, &fixture(primary)]
            .map(|dir| fs::read(dir.join("generation_config.json")).unwrap());
        assert_eq!(ours, theirs);
    }
}

#[test]
fn the_tokenizer_is_that_of_the_longer_vocabulary_or_the_one_that_was_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let [short, long] = ["llama/primary", "llama/secondary"].map(fixture);
    let tokenizer = ["special_tokens_map.json", "tokenizer.json", "tokenizer_config.json"];
    for (name, a, b, mode, expected) in [
        ("auto", &short, &long, "auto", &long),
        ("swapped", &long, &short, "auto", &long),
        ("primary", &short, &long, "primary", &short),
        ("secondary", &short, &long, "secondary", &long),
    ] {
        let out = dir.path().join(name);
        merge(a, b, &out, &["--tokenizer", mode]).success();
        for file in tokenizer {
            let [ours, theirs] = [&out, expected].map(|dir| fs::read(dir.join(file)).unwrap());
            assert_eq!(ours, theirs, "{name}: {file}");
        }
    }
    let out = dir.path().join("equal");
    let [a, b] = ["gpt2/primary", "gpt2/secondary"].map(fixture);
    merge(&a, &b, &out, &[]).success();
    assert_eq!(
        listing(&out),
        [
            "config.json",
            "generation_config.json",
            "merges.txt",
            "pytorch_model.bin",
            "slerp_merge.json",
            "special_tokens_map.json",
            "tokenizer.json",
            "tokenizer_config.json",
            "vocab.json"
        ]
    );
}

#[test]
fn the_plan_says_of_each_tensor_what_the_merge_then_reports() {
    let dir = tempfile::tempdir().unwrap();
    let [a, b] = ["llama/primary", "llama/secondary"].map(fixture);
    let out = dir.path().join("child");
    let plan = tool(["plan".as_ref(), a.as_os_str(), b.as_os_str(), "--json".as_ref()]).success();
    let done = merge(&a, &b, &out, &["--json"]).success();
    assert!(!out.with_file_name(".child.partial").exists());
    let (plan, done) = (plan.json(), done.json());
    let planned = plan["plan"]["storages"].as_array().unwrap();
    let reported = done["tensors"].as_array().unwrap();
    assert_eq!(planned.len(), reported.len());
    for (plan, report) in planned.iter().zip(reported) {
        for key in ["name", "dtype", "shape", "action"] {
            assert_eq!(plan[key], report[key]);
        }
    }
    assert_eq!(done["total_size"], plan["plan"]["total_size"]);
    let mut provenance: Value =
        serde_json::from_slice(&fs::read(out.join("slerp_merge.json")).unwrap()).unwrap();
    assert_eq!(provenance["t"], 0.5);
    for tensor in provenance["tensors"].as_array_mut().unwrap() {
        let merged = ["slerp", "linear"].contains(&tensor["action"].as_str().unwrap());
        let t = tensor.as_object_mut().unwrap().remove("t").unwrap();
        assert_eq!(t.as_f64(), merged.then_some(0.5), "{tensor}");
    }
    assert_eq!(provenance["tensors"], done["tensors"]);
}
