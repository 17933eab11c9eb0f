//! Checkpoints of training programs: values of other programs beside the weights, and the state dict
//! among much else. `scripts/fixtures/wild/leftovers.py` makes them with torch; all hold the weights of
//! `plain-a.pt`, so the child is that of the weights alone.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::support::{Run, command, fixture, merge, run, tool};

fn case(name: &str) -> PathBuf {
    fixture("wild/leftovers").join(format!("{name}.pt"))
}

fn keyed(name: &str, key: &str) -> PathBuf {
    PathBuf::from(format!("{}::{key}", case(name).display()))
}

/// The child's weights of a merge with `plain-b` that must succeed, and what it said.
#[track_caller]
fn child(dir: &Path, primary: &Path, options: &[&str]) -> (Vec<u8>, String) {
    let out = dir.join(format!("out-{}", fs::read_dir(dir).unwrap().count()));
    let said = merge(primary, &case("plain-b"), &out, options).success().stderr;
    (fs::read(out.join("pytorch_model.bin")).unwrap(), said)
}

fn inspect(path: &Path, options: &[&str]) -> Run {
    run(command().arg("inspect").arg(path).args(options))
}

#[test]
fn what_stands_beside_the_weights_is_left_out_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let (plain, said) = child(dir.path(), &case("plain-a"), &[]);
    assert!(!said.contains("left out"), "{said}");
    for (name, entry, words) in [
        ("namespace", "model", "`args` (`argparse.Namespace`, `pathlib.PosixPath`)"),
        ("namespace-legacy", "model", "`args` (`argparse.Namespace`, `pathlib.PosixPath`)"),
        ("namespace-protocol-1", "model", "`args` (`argparse.Namespace`, `pathlib.PosixPath`"),
        ("numpy", "model", "`best` (`numpy._core.multiarray.scalar`, `numpy.dtype`), `curve` ("),
        ("numpy-old", "model", "`best` (`numpy.core.multiarray.scalar`, `numpy.dtype`), `curve` ("),
        ("path", "state_dict", "`out` (`pathlib.PosixPath`)"),
        ("path-3.13", "state_dict", "`out` (`pathlib._local.PosixPath`)"),
        ("omegaconf", "model", "`hyper_parameters` (`omegaconf.dictconfig.DictConfig`, "),
        ("lightning", "state_dict", "(`lightning.fabric.utilities.data.AttributeDict`)"),
        ("everything", "model", "`when` (`datetime.datetime`, `datetime.timezone`, "),
        ("everything-protocol-4", "model", "`counts` (`collections.defaultdict`"),
        ("nested", "checkpoint.model.state_dict", "`version` (`torch.torch_version.TorchVersion`)"),
        ("hidden", "model", "`cache` (`types.SimpleNamespace` with 1 tensor that is not merged)"),
        ("dpo", "state", "further entries of `dpo.pt` are left out: step_idx, metrics"),
        ("states", "model_state", "are left out: optimizer_state, rng_state"),
        ("loss-beside", "weights", "are left out: loss, epoch"),
    ] {
        let (bytes, said) = child(dir.path(), &case(name), &[]);
        assert!(bytes == plain, "{name}: other bytes");
        let found = format!("primary: the state dict of `{name}.pt` is its entry `{entry}`\n");
        assert!(said.contains(&found) && said.contains(words), "{name}: {said}");
    }
}

#[test]
fn of_two_state_dicts_the_user_names_one() {
    let dir = tempfile::tempdir().unwrap();
    let (plain, _) = child(dir.path(), &case("plain-a"), &[]);
    let out = dir.path().join("refused");
    let said = merge(&case("ema"), &case("plain-b"), &out, &[]).refused(65);
    assert!(
        said.contains("expected one dict of tensors, found `model` (220 B), `model_ema` (220 B)")
    );
    assert!(said.contains("hint: name the one that you mean behind the file, as in FILE::model\n"));
    let (bytes, said) = child(dir.path(), &keyed("ema", "model"), &[]);
    assert!(bytes == plain && said.contains("is its entry `model`"), "{said}");
    // The average is plain-b's weights: merged with itself it is itself.
    let (average, _) = child(dir.path(), &keyed("ema", "model_ema"), &[]);
    let (same, _) = child(dir.path(), &case("plain-b"), &[]);
    assert!(average == same && same != plain);
    assert!(child(dir.path(), &keyed("two-nested", "model.raw"), &[]).0 == plain);
    assert!(child(dir.path(), &keyed("two-nested", "model.ema.decay=0.99"), &[]).0 == same);
    // The key may lead to what holds the state dict, and may be the top level.
    assert!(child(dir.path(), &keyed("nested", "checkpoint"), &[]).0 == plain);
    assert!(child(dir.path(), &keyed("plain-a", ""), &[]).0 == plain);
    let said = merge(&keyed("ema", "absent"), &case("plain-b"), &out, &[]).refused(66);
    let words = "expected a dict of tensors under `absent`, found dicts under `model`, `model_ema`";
    assert!(said.contains(words), "{said}");
    assert!(!out.exists());
}

#[test]
fn a_key_is_for_plan_inspect_verify_and_directories_too() {
    let dir = tempfile::tempdir().unwrap();
    let average = keyed("ema", "model_ema");
    let rows = inspect(&average, &["--json"]).success().json();
    assert_eq!(rows["tensors"].as_array().unwrap().len(), 4);
    tool(["plan".as_ref(), average.as_os_str(), case("plain-a").as_os_str()]).success();
    let said = tool(["verify".as_ref(), average.as_os_str()]).success().stdout;
    assert!(said.contains("note: the state dict is the entry `model_ema`: ema.pt"), "{said}");
    tool(["verify".as_ref(), case("ema").as_os_str()]).refused(65);
    tool(["verify".as_ref(), keyed("ema", "absent").as_os_str()]).refused(66);
    // A directory whose one file holds both; and a file whose name holds `::`.
    let model = dir.path().join("model");
    fs::create_dir(&model).unwrap();
    fs::copy(case("ema"), model.join("pytorch_model.bin")).unwrap();
    let named = PathBuf::from(format!("{}::model", model.display()));
    let odd = dir.path().join("odd::name.pt");
    fs::copy(case("plain-a"), &odd).unwrap();
    let (plain, _) = child(dir.path(), &case("plain-a"), &[]);
    assert!(child(dir.path(), &named, &[]).0 == plain);
    assert!(child(dir.path(), &odd, &[]).0 == plain);
    // The output may not lie in a parent, however the parent is named.
    let said = merge(&named, &case("plain-b"), &model.join("child"), &[]).refused(73);
    assert!(said.contains("apart from both parents"), "{said}");
    let shards = PathBuf::from(format!("{}::model", fixture("llama/primary").display()));
    assert!(inspect(&shards, &[]).refused(65).contains("a key chooses an entry of one file"));
    let verified = tool(["verify".as_ref(), shards.as_os_str()]);
    assert!(verified.code == Some(65) && verified.stdout.contains("a key chooses an entry"));
}

#[test]
fn a_name_that_the_table_lacks_is_refused_unless_the_user_gives_it() {
    let dir = tempfile::tempdir().unwrap();
    let name = "trainer.config.TrainConfig";
    let out = dir.path().join("refused");
    let said = merge(&case("user-class"), &case("plain-b"), &out, &[]).refused(65);
    assert!(said.contains(&format!("expected names that tensors need, found `{name}`")), "{said}");
    assert!(said.contains(&format!("`--opaque {name}` leaves it out")), "{said}");
    let (plain, _) = child(dir.path(), &case("plain-a"), &[]);
    let option = format!("--opaque={name}");
    let (bytes, said) = child(dir.path(), &case("user-class"), &[&option, "--opaque=a.B,c.D"]);
    assert!(bytes == plain && said.contains(&format!("`config` (`{name}`)")), "{said}");
    inspect(&case("user-class"), &[&option]).success();
    let verify = tool(["verify".as_ref(), case("user-class").as_os_str(), option.as_ref()]);
    assert!(
        verify.success().stdout.contains(&format!("not read: user-class.pt: `config` (`{name}`"))
    );
    fs::copy(case("user-class"), dir.path().join("model.pt")).unwrap();
    let found = |options: &[&str]| run(command().arg("find").arg(dir.path()).args(options));
    assert!(!found(&[]).success().stdout.contains("model.pt"));
    assert!(found(&[&option]).success().stdout.contains("model.pt"));
    for name in ["os.system", "builtins.eval", "subprocess.Popen", "posix.system", "torch.load"] {
        let said = inspect(&case("plain-a"), &["--opaque", name]).refused(2);
        assert!(said.contains(&format!("`{name}` is known to run code")), "{said}");
    }
    assert!(inspect(&case("plain-a"), &["--opaque", "Config"]).refused(2).contains("MODULE.NAME"));
}

#[test]
fn tensors_that_the_child_would_lack_are_no_side_matter() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("refused");
    let said = merge(&case("hidden-inside"), &case("plain-b"), &out, &[]).refused(65);
    assert!(
        said.contains("`extra`: expected tensors by their names, found 1 tensor inside"),
        "{said}"
    );
}

#[test]
fn a_batch_takes_keys_and_names_and_knows_the_child_by_them() {
    let dir = tempfile::tempdir().unwrap();
    let job = |key: &str| {
        json!({ "merges": [{
            "primary": format!("{}::{key}", case("ema").display()), "secondary": case("user-class"),
            "output": "out", "opaque": ["trainer.config.TrainConfig", "a.B"] }] })
    };
    let batch = |key: &str| {
        fs::write(dir.path().join("merges.json"), job(key).to_string()).unwrap();
        let run = run(command().current_dir(&dir).args(["batch", "merges.json", "--json"]));
        let results = run.json()["jobs"][0]["result"].as_str().map(str::to_owned);
        (run.code, results.unwrap())
    };
    assert_eq!(batch("model_ema"), (Some(0), "merged".to_owned()));
    let text = fs::read_to_string(dir.path().join("out/slerp_merge.json")).unwrap();
    let provenance: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(provenance["primary"]["key"], "model_ema");
    assert!(provenance["secondary"].get("key").is_none());
    assert!(provenance["primary"]["path"].as_str().unwrap().ends_with("leftovers/ema.pt"));
    assert_eq!(batch("model_ema"), (Some(0), "present".to_owned()));
    // Another entry of the same file is another parent.
    assert_eq!(batch("model").1, "refused");
}
