//! Parents without checksums, told apart.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use llm_slerp_merge::tensor::DType;
use serde_json::{Value, json};

use crate::build::{Dict, sharded};
use crate::midway::{Midway, finished, parents_of, tool_in};
use crate::support::{Run, command, fixture, fixture_json, listing, merge, run, snapshot, tool};

/// The parents of the fixtures, in a directory of their own.
fn parents(dir: &Path) -> [PathBuf; 3] {
    ["first.bin", "second.bin", "partner.bin"].map(|name| {
        let path = dir.join(name);
        fs::copy(fixture("wild/identity").join(name), &path).unwrap();
        path
    })
}

fn provenance(child: &Path) -> Value {
    serde_json::from_slice(&fs::read(child.join("slerp_merge.json")).unwrap()).unwrap()
}

/// CRC-32 of what was read of a parent's only file.
fn content(child: &Path, side: &str) -> String {
    let found = &provenance(child)[side]["files"][0]["content"]["crc32"];
    found.as_str().unwrap_or_else(|| panic!("none of the {side}")).to_owned()
}

/// A batch of one merge into `dir/child`.
fn batch(dir: &Path, primary: &Path, secondary: &Path, overwrite: bool) -> Run {
    let job = json!({ "primary": primary, "secondary": secondary, "output": "child" });
    let mut value = json!({ "merges": [job] });
    value["merges"][0]["overwrite"] = json!(overwrite);
    let manifest = dir.join("merges.json");
    fs::write(&manifest, value.to_string()).unwrap();
    run(command().current_dir(dir).args(["batch", "merges.json", "--json"]))
}

#[track_caller]
fn result(run: Run) -> String {
    run.success().json()["jobs"][0]["result"].as_str().unwrap().to_owned()
}

fn set_modified(path: &Path, time: SystemTime) {
    OpenOptions::new().write(true).open(path).unwrap().set_modified(time).unwrap();
}

/// Changes one bit and puts the time back.
fn flip(path: &Path, offset: u64) {
    let time = fs::metadata(path).unwrap().modified().unwrap();
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 1], offset).unwrap();
    file.set_modified(time).unwrap();
    drop(file);
}

/// `scripts/fixtures/wild/identity.py` worked them out with zlib.
#[test]
fn the_crc_of_every_storage_is_kept_however_it_was_read() {
    let dir = tempfile::tempdir().unwrap();
    let expected = fixture_json("wild/identity/expected.json");
    let of = |name: &str| expected[name].as_str().unwrap();
    let path = |name: &str| fixture("wild/identity").join(format!("{name}.bin"));
    let mut number = 0;
    for options in [
        &["--threads", "1"][..],
        &["--threads", "4", "--memory", "0"],
        &["-t", "0"],
        &["-t", "1"],
        &["--method", "linear"],
        &["--dtype", "float32"],
        &["--missing", "union"],
    ] {
        for [a, b] in [["first", "partner"], ["partner", "first"], ["unsummed", "second"]] {
            number += 1;
            let child = dir.path().join(number.to_string());
            merge(&path(a), &path(b), &child, options).success();
            let found = [content(&child, "primary"), content(&child, "secondary")];
            assert_eq!(found, [of(a), of(b)], "{options:?}");
        }
    }
    let children = dir.path().join("sweep-{t}");
    merge(&path("first"), &path("partner"), &children, &["-t", "0,0.5,1"]).success();
    for t in ["0", "0.5", "1"] {
        assert_eq!(content(&dir.path().join(format!("sweep-{t}")), "primary"), of("first"));
    }
    // Files with CRCs have nothing to add.
    let child = dir.path().join("summed");
    merge(&fixture("llama/primary"), &fixture("llama/secondary"), &child, &[]).success();
    assert_eq!(provenance(&child)["primary"]["files"][0].get("content"), None);
}

#[test]
fn a_large_tensor_has_the_crc_of_its_bytes_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let bytes: Vec<u8> = (0..10_000_000u64).map(|i| (i * i % 59) as u8).collect();
    let make = |name: &str, seed: u8| {
        let bytes = bytes.iter().map(|byte| byte ^ seed).collect();
        let shape = [5_000_000];
        Dict::new().raw("w", DType::Float16, &shape, bytes).unsummed().bare(dir.path(), name)
    };
    let [a, b] = [make("a", 0), make("b", 1)];
    let mut found = Vec::new();
    for (name, options) in
        [("1", ["--threads", "1"]), ("2", ["--threads", "3"]), ("3", ["--memory", "0"])]
    {
        let child = dir.path().join(name);
        merge(&a, &b, &child, &options).success();
        found.push([content(&child, "primary"), content(&child, "secondary")]);
    }
    // zlib: crc32(pack("<I", crc32(bytes))).
    let crc = |bytes: &[u8]| crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32IsoHdlc, bytes) as u32;
    let other: Vec<u8> = bytes.iter().map(|byte| byte ^ 1).collect();
    let expected = [&bytes, &other].map(|bytes| format!("{:08x}", crc(&crc(bytes).to_le_bytes())));
    assert_eq!(found, vec![expected; 3]);
}

#[test]
fn another_parent_of_the_same_shape_is_another_parent_though_its_file_is_older() {
    let dir = tempfile::tempdir().unwrap();
    let [first, second, partner] = parents(dir.path());
    set_modified(&second, SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000));
    assert_eq!(result(batch(dir.path(), &first, &partner, false)), "merged");
    assert_eq!(result(batch(dir.path(), &first, &partner, false)), "present");
    // Under the same name in another place, too.
    let elsewhere = dir.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let named = elsewhere.join("first.bin");
    fs::copy(&second, &named).unwrap();
    set_modified(&named, SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000));
    for (other, side) in [
        ([&second, &partner], "primary"),
        ([&named, &partner], "primary"),
        ([&first, &first], "secondary"),
    ] {
        let said = batch(dir.path(), other[0], other[1], false).refused(1);
        let words = format!("found it was made from another {side}");
        assert!(said.contains(&words) && said.contains("overwrite"), "{said}");
    }
    assert_eq!(result(batch(dir.path(), &named, &partner, true)), "merged");
    let clean = dir.path().join("clean");
    merge(&second, &partner, &clean, &[]).success();
    let weights = |child: &Path| fs::read(child.join("pytorch_model.bin")).unwrap();
    assert!(weights(&dir.path().join("child")) == weights(&clean));
    assert_eq!(result(batch(dir.path(), &named, &partner, false)), "present");
}

#[test]
fn a_touched_parent_a_copy_and_a_moved_one_are_read_again_and_known() {
    let dir = tempfile::tempdir().unwrap();
    let [first, _, partner] = parents(dir.path());
    assert_eq!(result(batch(dir.path(), &first, &partner, false)), "merged");
    let child = snapshot(&dir.path().join("child"));
    set_modified(&first, SystemTime::now() + Duration::from_secs(1000));
    assert_eq!(result(batch(dir.path(), &first, &partner, false)), "present");
    for (place, copy) in [("copy", true), ("moved", false)] {
        let place = dir.path().join(place);
        fs::create_dir(&place).unwrap();
        let [a, b] = [&first, &partner].map(|path| {
            let there = place.join(path.file_name().unwrap());
            if copy {
                fs::copy(path, &there).unwrap();
            } else {
                fs::rename(path, &there).unwrap();
            }
            there
        });
        assert_eq!(result(batch(dir.path(), &a, &b, false)), "present");
    }
    assert!(snapshot(&dir.path().join("child")) == child);
}

/// As long as nobody touches them.
#[test]
fn parents_that_were_left_alone_are_not_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let [first, _, partner] = parents(dir.path());
    let child = dir.path().join("child");
    // Longer than the clock of any file system takes to tick.
    std::thread::sleep(Duration::from_millis(2100));
    merge(&first, &partner, &child, &[]).success();
    let again = || {
        let said = merge(&first, &partner, &child, &["--resume", "-v"]).success().stderr;
        assert!(said.contains("complete already"), "{said}");
        said.lines().filter(|line| line.contains("again: it may not be what it was")).count()
    };
    assert_eq!(again(), 0);
    File::open(&first).unwrap().set_modified(SystemTime::now()).unwrap();
    assert_eq!(again(), 1);
}

#[test]
fn a_bit_that_was_changed_behind_an_old_time_is_seen() {
    for name in ["first.bin", "partner.bin", "unsummed.bin"] {
        let dir = tempfile::tempdir().unwrap();
        let [first, _, partner] = parents(dir.path());
        let unsummed = dir.path().join("unsummed.bin");
        fs::copy(fixture("wild/identity/unsummed.bin"), &unsummed).unwrap();
        let primary = if name == "unsummed.bin" { &unsummed } else { &first };
        assert_eq!(result(batch(dir.path(), primary, &partner, false)), "merged");
        assert_eq!(result(batch(dir.path(), primary, &partner, false)), "present");
        let path = dir.path().join(name);
        let length = fs::metadata(&path).unwrap().len();
        // In the data: a legacy file ends with it, a zip has it in the middle.
        flip(&path, if name == "unsummed.bin" { length / 2 } else { length - 2 });
        let said = batch(dir.path(), primary, &partner, false).refused(1);
        let side = if name == "partner.bin" { "secondary" } else { "primary" };
        assert!(said.contains(&format!("made from another {side}")), "{name}: {said}");
    }
}

/// `only.weight` is the last storage of `first.bin`, and the child of `partner.bin` lacks it.
#[test]
fn what_the_merge_left_out_counts_too() {
    let dir = tempfile::tempdir().unwrap();
    let [first, _, partner] = parents(dir.path());
    assert_eq!(result(batch(dir.path(), &partner, &first, false)), "merged");
    assert_eq!(result(batch(dir.path(), &partner, &first, false)), "present");
    let length = fs::metadata(&first).unwrap().len();
    flip(&first, length - 2);
    let said = batch(dir.path(), &partner, &first, false).refused(1);
    assert!(said.contains("made from another secondary"), "{said}");
}

#[test]
fn a_child_whose_record_does_not_tell_what_was_read_is_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let [first, _, partner] = parents(dir.path());
    assert_eq!(result(batch(dir.path(), &first, &partner, false)), "merged");
    let path = dir.path().join("child/slerp_merge.json");
    let mut value = provenance(&dir.path().join("child"));
    value["primary"]["files"][0].as_object_mut().unwrap().remove("content");
    fs::write(&path, value.to_string()).unwrap();
    let said = batch(dir.path(), &first, &partner, false).refused(1);
    assert!(said.contains("made from another primary"), "{said}");
}

/// The same bytes under each other's names: the CRCs of the files are equal.
#[test]
fn names_that_were_exchanged_make_another_parent() {
    let dir = tempfile::tempdir().unwrap();
    let make = |names: [&str; 2], place: &str| {
        let dict = Dict::new().noise(names[0], &[4, 4], 1).noise(names[1], &[4, 4], 2);
        dict.bare(dir.path(), place)
    };
    let [a, b] = [make(["x.w", "y.w"], "a"), make(["y.w", "x.w"], "b")];
    let partner = Dict::new().noise("x.w", &[4, 4], 3).noise("y.w", &[4, 4], 4);
    let partner = partner.bare(dir.path(), "partner");
    assert_eq!(result(batch(dir.path(), &a, &partner, false)), "merged");
    let said = batch(dir.path(), &b, &partner, false).refused(1);
    assert!(said.contains("made from another primary"), "{said}");
}

/// Only the storages without one are read again.
#[test]
fn files_and_storages_with_and_without_crcs_may_be_mixed() {
    let dir = tempfile::tempdir().unwrap();
    let shard = |name: &str, seed: u64, mixed: bool| {
        let bare = Dict::new().noise(&format!("{name}.a"), &[4, 4], seed);
        let bare = if mixed { bare.unsummed() } else { bare };
        bare.noise(&format!("{name}.b"), &[4, 4], seed + 1)
    };
    let make = |name: &str, seed: u64| {
        sharded(dir.path(), name, &[shard("x", seed, false), shard("y", seed + 2, true)])
    };
    let [a, b] = [make("a", 1), make("b", 10)];
    assert_eq!(result(batch(dir.path(), &a, &b, false)), "merged");
    assert_eq!(result(batch(dir.path(), &a, &b, false)), "present");
    let files = &provenance(&dir.path().join("child"))["primary"]["files"];
    assert_eq!(files[0].get("content"), None);
    assert!(files[1]["content"]["crc32"].is_string(), "{files}");
    // The first value of `y.a`, where the file has it.
    let path = a.join("pytorch_model-00002-of-00002.bin");
    let value = crate::build::noise(1, 3)[0] as f32;
    let bytes = fs::read(&path).unwrap();
    let place = bytes.windows(4).position(|bytes| bytes == value.to_le_bytes()).unwrap();
    flip(&path, place as u64);
    let said = batch(dir.path(), &a, &b, false).refused(1);
    assert!(said.contains("made from another primary"), "{said}");
}

/// The CPU in the place of the GPU, whole tensors in its memory and not.
#[test]
fn devices_note_what_they_read() {
    let dir = tempfile::tempdir().unwrap();
    let expected = fixture_json("wild/identity/expected.json");
    for (number, stand_ins) in
        ["devices=1", "devices=2", "oom=1x1000", "oom=1x5"].iter().enumerate()
    {
        let child = dir.path().join(number.to_string());
        let mut command = command();
        command.env("LLM_SLERP_MERGE_TEST_DEVICES", stand_ins).arg("merge");
        command.args(
            ["first", "partner"].map(|name| fixture("wild/identity").join(format!("{name}.bin"))),
        );
        command.arg("-o").arg(&child).args(["--no-fsync", "--device", "cuda"]);
        run(&mut command).success();
        assert_eq!(content(&child, "primary"), expected["first"].as_str().unwrap());
        assert_eq!(content(&child, "secondary"), expected["partner"].as_str().unwrap());
    }
}

#[test]
fn a_resumed_merge_knows_what_the_interrupted_one_read() {
    let dir = tempfile::tempdir().unwrap();
    parents_of(dir.path(), Dict::unsummed);
    let work = ".child.partial";
    Midway::begin(dir.path(), &["-o", "child"], work, 5).kill();
    assert!(finished(&dir.path().join(work)) >= 5);
    let said = tool_in(dir.path(), &["merge", "a", "b", "-o", "child", "--resume", "-v"]);
    assert!(said.success().stderr.contains("resuming: "));
    fs::rename(dir.path().join("child"), dir.path().join("resumed")).unwrap();
    tool_in(dir.path(), &["merge", "a", "b", "-o", "child"]).success();
    let both = ["child", "resumed"].map(|name| snapshot(&dir.path().join(name)));
    assert!(both[0] == both[1]);
    assert!(!content(&dir.path().join("child"), "secondary").is_empty());
    // A byte that changed meanwhile, behind the old time, is another parent.
    fs::remove_dir_all(dir.path().join("child")).unwrap();
    Midway::begin(dir.path(), &["-o", "child"], work, 5).kill();
    flip(&dir.path().join("a/pytorch_model.bin"), 100_000);
    let said = tool_in(dir.path(), &["merge", "a", "b", "-o", "child", "--resume"]).refused(75);
    assert!(said.contains("primary: files: pytorch_model.bin: changed_ns"), "{said}");
    assert_eq!(listing(dir.path()), [work, "a", "b", "resumed"]);
}

#[test]
fn the_plan_of_a_parent_without_checksums_reads_no_data() {
    let path = fixture("wild/identity/first.bin");
    let plan = tool(["plan".as_ref(), path.as_os_str(), path.as_os_str(), "--json".as_ref()]);
    assert!(!plan.success().stderr.contains("again"));
}
