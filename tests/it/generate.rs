//! `completions` and `man`, what the help says, and command lines with common mistakes.

use std::process::Command;

use crate::support::{command, fixture, tool};

const COMMANDS: [&str; 7] = ["merge", "plan", "inspect", "verify", "find", "completions", "man"];

/// What bash offers behind these words, by the script that the tool prints.
fn offered(words: &[&str]) -> Vec<String> {
    let script = r#"
        source "$1"; shift
        function=$(complete -p llm-slerp-merge | sed 's/.*-F \([^ ]*\).*/\1/')
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMPREPLY=()
        "$function" llm-slerp-merge "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
        printf '%s\n' "${COMPREPLY[@]}"
    "#;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("completions.bash");
    std::fs::write(&path, tool(["completions", "bash"]).success().stdout).unwrap();
    let mut bash = Command::new("bash");
    bash.args(["--norc", "-c", script, "bash"]).arg(&path).arg("llm-slerp-merge").args(words);
    let output = bash.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_commands_options_and_their_values() {
    let first = offered(&[""]);
    for name in COMMANDS {
        assert!(first.iter().any(|word| word == name), "no {name} in {first:?}");
    }
    assert_eq!(offered(&["ver"]), ["verify"]);
    assert_eq!(offered(&["merge", "--exte"]), ["--extend"]);
    let modes = offered(&["merge", "a", "b", "--extend", ""]);
    assert_eq!(modes, ["gradient", "bridge", "inherit", "mean", "zero", "error"]);
    assert_eq!(offered(&["help", "mer"]), ["merge"]);
    assert!(offered(&["completions", ""]).contains(&"zsh".to_owned()));
}

#[test]
fn every_shell_has_a_script_and_others_are_refused() {
    for (shell, start) in [
        ("bash", "_llm__slerp__merge() {"),
        ("zsh", "#compdef llm-slerp-merge"),
        ("fish", "# Print an optspec"),
        ("elvish", "\nuse builtin"),
        ("powershell", "\nusing namespace"),
    ] {
        let script = tool(["completions", shell]).success().stdout;
        assert!(script.starts_with(start), "{shell}: {}", &script[..60]);
    }
    let said = tool(["completions", "tcsh"]).refused(2);
    assert!(said.contains("possible values: bash, elvish, fish, powershell, zsh"), "{said}");
}

#[test]
fn the_tool_and_every_command_have_a_man_page() {
    let page = tool(["man"]).success().stdout;
    assert!(page.contains(".TH llm-slerp-merge 1") && page.contains("Exit codes"), "{page}");
    for name in COMMANDS {
        let page = tool(["man", name]).success().stdout;
        assert!(page.contains(&format!(".TH llm-slerp-merge-{name} 1")), "{page}");
        assert!(page.contains(r"\-\-json"), "{page}");
    }
    let said = tool(["man", "absent"]).refused(2);
    assert!(said.starts_with("error: no such command: expected one of merge, plan"), "{said}");
}

#[test]
fn help_fits_eighty_columns() {
    let helps = COMMANDS.map(|name| vec![name, "--help"]);
    let general = [vec!["--help"], vec!["-h"]];
    for arguments in helps.iter().chain(&general) {
        let output = command().env("COLUMNS", "80").args(arguments).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains("Usage: "), "{arguments:?}");
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{arguments:?}: {line}");
        }
    }
}

#[test]
fn an_output_without_its_flag_is_told_how_to_be_named() {
    let said = tool(["merge", "a", "b", "child"]).refused(2);
    assert!(said.contains("tip: a merge has two parents"), "{said}");
    assert!(said.contains("`-o child`") && said.contains("<SECONDARY> -o <OUT>"), "{said}");
    let said = tool(["inspect", "--absent"]).refused(2);
    assert!(!said.contains("two parents"), "{said}");
    let [a, b] = ["llama/primary", "llama/secondary"].map(fixture);
    let said = tool(["merge".as_ref(), a.as_os_str(), b.as_os_str()]).refused(2);
    assert_eq!(said, "error: no output is named\nhint: name the child's directory: -o OUT\n");
}

#[test]
fn a_t_outside_the_line_is_refused_however_it_is_written() {
    for t in ["1.5", "-0.5", "50%", "nan", ""] {
        let said = tool(["merge", "a", "b", "-o", "child", "-t", t]).refused(2);
        assert!(said.contains(&format!("t must lie in 0..=1, got `{t}`")), "{said}");
    }
}
