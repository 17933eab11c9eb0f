//! Limits, changed parents, removed directories, strange surroundings: the right code, and nothing is
//! left. What needs root or strace is in scripts/faults.sh.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::build::{Dict, sharded};
use crate::midway::{Midway, parents, tool_in};
use crate::support::{Run, command, listing, run, run_as_plain_user, snapshot};

const WORK: &str = ".child.partial";

/// Two small parents, `a` and `b`.
fn small() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, seed) in [("a", 1), ("b", 2)] {
        let dict = Dict::new().noise("v", &[64, 64], seed).noise("w", &[32, 32], seed + 7);
        dict.model(dir.path(), name, "{}");
    }
    dir
}

/// Runs the tool after `first` in a shell, in `dir`.
fn shell(dir: &Path, first: &str, options: &[&str]) -> Run {
    let script = format!("{first} exec \"$0\" \"$@\"");
    let mut shell = Command::new("sh");
    shell.current_dir(dir).env_remove("RUST_LOG").args(["-c", &script]);
    shell.arg(env!("CARGO_BIN_EXE_llm-slerp-merge")).args(options).stdin(Stdio::null());
    run(&mut shell)
}

#[test]
fn a_file_size_limit_is_an_error_and_nothing_is_left() {
    let dir = small();
    // In units of 512 bytes; the weights have 22 kB.
    for limit in 0..20 {
        let merge = ["merge", "a", "b", "-o", "new/child"];
        let said = shell(dir.path(), &format!("ulimit -f {limit};"), &merge).refused(74);
        assert!(said.contains("new/.child.partial/") && said.contains("ulimit -f"), "{said}");
        assert_eq!(listing(dir.path()), ["a", "b"], "at {limit}");
    }
    shell(dir.path(), "ulimit -f 1000;", &["merge", "a", "b", "-o", "new/child"]).success();
}

/// Two parents of so many shards, each with a tensor of its own.
fn many(shards: u64) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, seed) in [("a", 0), ("b", shards)] {
        let tensor = |i: u64| Dict::new().noise(&format!("w.{i}"), &[8, 8], seed + i);
        sharded(dir.path(), name, &(0..shards).map(tensor).collect::<Vec<_>>());
    }
    dir
}

#[test]
fn many_shards_need_few_file_handles() {
    let dir = many(5000);
    let options = ["--max-shard-size", "256", "--no-fsync"];
    let merge = [&["merge", "a", "b", "-o", "child"], &options[..]].concat();
    shell(dir.path(), "ulimit -n 64;", &merge).success();
    assert_eq!(listing(&dir.path().join("child")).len(), 5002);
    shell(dir.path(), "ulimit -n 64;", &["verify", "child"]).success();
    let dir = many(300);
    let values = "0,0.1,0.2,0.3,0.4,0.5,0.6,0.7";
    let sweep = [&["merge", "a", "b", "-o", "child-{t}", "-t", values], &options[..]].concat();
    shell(dir.path(), "ulimit -n 96;", &sweep).success();
}

#[test]
fn too_few_file_handles_are_a_lack_of_resources_and_nothing_is_left() {
    let dir = small();
    let mut refused = 0;
    for limit in 4..12 {
        let run =
            shell(dir.path(), &format!("ulimit -n {limit};"), &["merge", "a", "b", "-o", "child"]);
        match run.code {
            Some(0) => fs::remove_dir_all(dir.path().join("child")).unwrap(),
            // The dynamic linker's code where it can't open the libraries.
            Some(127) => {}
            _ => {
                assert!(run.refused(71).contains("Too many open files"));
                refused += 1;
            }
        }
        assert_eq!(listing(dir.path()), ["a", "b"], "at {limit}");
    }
    assert!(refused > 0);
}

#[test]
fn what_a_plain_user_may_not_read_or_write_is_named() {
    let dir = small();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(dir.path().join("shut")).unwrap();
    let cases = [
        ("shut/child", "shut", 0o555, 73),
        ("new/child", ".", 0o555, 73),
        ("open/child", "b", 0o000, 66),
        ("open/child", "b/pytorch_model.bin", 0o000, 66),
        ("open/child", "b/config.json", 0o000, 66),
    ];
    fs::create_dir(dir.path().join("open")).unwrap();
    fs::set_permissions(dir.path().join("open"), fs::Permissions::from_mode(0o777)).unwrap();
    let before = snapshot(dir.path());
    for (output, place, mode, code) in cases {
        let path = dir.path().join(place);
        let usual = fs::metadata(&path).unwrap().permissions();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let mut command = command();
        command.current_dir(dir.path()).args(["merge", "a", "b", "-o", output]);
        let run = run_as_plain_user(&mut command);
        fs::set_permissions(&path, usual).unwrap();
        let Some(Run { code: found, stderr: said, .. }) = run else { return };
        assert_eq!(found, Some(code), "{place}: {said}");
        assert!(said.contains("Permission denied") && said.starts_with("error: "), "{said}");
        assert_eq!(snapshot(dir.path()), before, "{place}");
    }
}

#[test]
fn a_parent_that_changes_while_it_is_read_stops_the_merge() {
    let dir = tempfile::tempdir().unwrap();
    parents(dir.path());
    let path = dir.path().join("b/pytorch_model.bin");
    let whole = fs::read(&path).unwrap();
    let changes: [(&str, &dyn Fn()); 6] = [
        ("grown", &|| {
            let mut file = OpenOptions::new().append(true).open(&path).unwrap();
            file.write_all(b"more").unwrap();
        }),
        ("cut short", &|| {
            let file = OpenOptions::new().write(true).open(&path).unwrap();
            file.set_len(whole.len() as u64 / 3).unwrap();
        }),
        ("emptied", &|| fs::write(&path, b"").unwrap()),
        ("edited", &|| {
            let file = OpenOptions::new().write(true).open(&path).unwrap();
            file.write_all_at(b"x", whole.len() as u64 - 4000).unwrap();
        }),
        ("replaced", &|| {
            let other = path.with_extension("other");
            fs::write(&other, &whole).unwrap();
            fs::rename(&other, &path).unwrap();
        }),
        ("removed", &|| fs::remove_file(&path).unwrap()),
    ];
    for (name, change) in changes {
        let midway = Midway::begin(dir.path(), &["-o", "child"], WORK, 5);
        change();
        let (run, _) = midway.end();
        let said = run.refused(75);
        assert!(said.contains("while it was read"), "{name}: {said}");
        assert!(said.contains("b/pytorch_model.bin"), "{name}: {said}");
        assert_eq!(listing(dir.path()), ["a", "b"], "{name}");
        fs::write(&path, &whole).unwrap();
    }
}

#[test]
fn an_output_directory_that_is_removed_underneath_is_an_error_and_nothing_is_left() {
    let dir = tempfile::tempdir().unwrap();
    parents(dir.path());
    for gone in ["new", "new/.child.partial"] {
        fs::create_dir_all(dir.path().join("new")).unwrap();
        let midway = Midway::begin(dir.path(), &["-o", "new/child"], "new/.child.partial", 5);
        fs::remove_dir_all(dir.path().join(gone)).unwrap();
        let (run, _) = midway.end();
        let said = run.refused(74);
        assert!(said.contains("new/.child.partial"), "{said}");
        let left = if gone == "new" { vec!["a", "b"] } else { vec!["a", "b", "new"] };
        assert_eq!(listing(dir.path()), left);
        assert!(gone == "new" || listing(&dir.path().join("new")).is_empty());
    }
}

#[test]
fn modes_follow_the_umask() {
    let dir = small();
    for (umask, dir_mode, file_mode) in
        [("000", 0o777, 0o666), ("022", 0o755, 0o644), ("027", 0o750, 0o640), ("077", 0o700, 0o600)]
    {
        let merge = ["merge", "a", "b", "-o", "child", "--overwrite"];
        shell(dir.path(), &format!("umask {umask};"), &merge).success();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        let child = dir.path().join("child");
        assert_eq!(mode(&child), dir_mode);
        for name in listing(&child) {
            assert_eq!(mode(&child.join(&name)), file_mode, "{name}");
        }
    }
}

#[test]
fn surroundings_do_not_change_the_child() {
    let dir = small();
    tool_in(dir.path(), &["merge", "a", "b", "-o", "child"]).success();
    let golden = snapshot(&dir.path().join("child"));
    for first in [
        "unset HOME;",
        "TMPDIR=/nonexistent; export TMPDIR;",
        "LANG=C; LC_ALL=C; export LANG LC_ALL;",
        "exec <&-;",
        "exec >&-;",
        "exec 2>&-;",
        "exec <&- >&- 2>&-;",
        "exec 2>/dev/full;",
        "RUST_LOG=trace; export RUST_LOG; exec 2>/dev/full;",
    ] {
        let merge = ["merge", "a", "b", "-o", "child", "--overwrite", "-t", "0.5"];
        shell(dir.path(), first, &merge).success();
        assert!(snapshot(&dir.path().join("child")) == golden, "{first}");
        assert_eq!(listing(dir.path()), ["a", "b", "child"], "{first}");
    }
    // A result that can't be told is an error, though the child is there.
    let merge = ["merge", "a", "b", "-o", "child", "--overwrite", "--json"];
    let said = shell(dir.path(), "exec >/dev/full;", &merge).refused(74);
    assert!(said.contains("cannot write to stdout"), "{said}");
}

#[test]
fn an_output_may_have_the_longest_name_that_there_is() {
    let dir = small();
    let name = "c".repeat(255);
    tool_in(dir.path(), &["merge", "a", "b", "-o", &name]).success();
    assert_eq!(listing(dir.path()), ["a", "b", &name]);
}

#[test]
fn of_runs_to_one_output_at_once_one_wins_and_the_others_are_told() {
    let dir = tempfile::tempdir().unwrap();
    parents(dir.path());
    tool_in(dir.path(), &["merge", "a", "b", "-o", "child"]).success();
    let golden = snapshot(&dir.path().join("child"));
    for round in 0..8 {
        fs::remove_dir_all(dir.path().join("child")).unwrap();
        let begin = || {
            let mut command = command();
            command.current_dir(dir.path()).args(["merge", "a", "b", "-o", "child", "-q"]);
            command.stderr(Stdio::piped()).spawn().unwrap()
        };
        let runs = [begin(), begin(), begin()];
        let codes = runs.map(|run| run.wait_with_output().unwrap().status.code());
        let won = codes.iter().filter(|code| **code == Some(0)).count();
        assert_eq!(won, 1, "round {round}: {codes:?}");
        assert!(codes.iter().all(|code| matches!(code, Some(0 | 73 | 75))), "{codes:?}");
        assert!(snapshot(&dir.path().join("child")) == golden);
        assert_eq!(listing(dir.path()), ["a", "b", "child"]);
    }
}
