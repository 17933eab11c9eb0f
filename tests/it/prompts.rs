//! The tool alone on a terminal: the real binary on a pseudo-terminal, driven by keys.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

use crate::build::Dict;
use crate::support::{child_bytes, command, fixture, listing, merge, tool};

const ENTER: &str = "\r";
const DOWN: &str = "\x1b[B";
const ESCAPE: &str = "\x1b";
const CTRL_C: &str = "\x03";
const BACKSPACE: &str = "\x7f";

/// How long an answer may take before the test fails; far above any real one.
const PATIENCE: Duration = Duration::from_secs(60);

/// The tool on a terminal of its own.
struct Terminal {
    child: Child,
    keyboard: File,
    screen: Receiver<Vec<u8>>,
    /// All that was ever shown, as it came: a read may end inside a sequence of colours.
    history: Vec<u8>,
    /// Where in it the last keys were pressed.
    pressed: usize,
}

impl Terminal {
    /// Starts the tool in `dir` without arguments.
    fn start(dir: &Path) -> Terminal {
        let (ours, theirs) = pair();
        let end = || Stdio::from(theirs.try_clone().unwrap());
        let mut command = command();
        command.current_dir(dir).env("TERM", "xterm").env_remove("NO_COLOR");
        let child = command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        let mut reader = ours.try_clone().unwrap();
        let (sender, screen) = channel();
        // Ends with the child: reading fails once nobody holds the other side.
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut bytes) {
                if sender.send(bytes[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Terminal { child, keyboard: ours, screen, history: Vec::new(), pressed: 0 }
    }

    /// Waits until `words` have been shown since the last keys.
    #[track_caller]
    fn see(&mut self, words: &str) -> &mut Terminal {
        let end = Instant::now() + PATIENCE;
        while !shown(&self.history[self.pressed..]).contains(words) {
            let left = end.saturating_duration_since(Instant::now());
            let Ok(bytes) = self.screen.recv_timeout(left) else {
                panic!("no `{words}` after the last keys in: {}", shown(&self.history));
            };
            self.history.extend(bytes);
        }
        self
    }

    fn press(&mut self, keys: &str) -> &mut Terminal {
        self.pressed = self.history.len();
        self.keyboard.write_all(keys.as_bytes()).unwrap();
        self
    }

    /// Waits for the end of the tool.
    fn end(mut self) -> (ExitStatus, String) {
        let status = self.child.wait().unwrap();
        while let Ok(bytes) = self.screen.recv_timeout(Duration::from_millis(200)) {
            self.history.extend(bytes);
        }
        (status, shown(&self.history))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
    }
}

/// Both sides of a new pseudo-terminal of 100 columns.
fn pair() -> (File, OwnedFd) {
    let ours = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    rustix::pty::grantpt(&ours).unwrap();
    rustix::pty::unlockpt(&ours).unwrap();
    let name = rustix::pty::ptsname(&ours, Vec::new()).unwrap();
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let theirs = rustix::fs::open(name, flags, Mode::empty()).unwrap();
    let size = Winsize { ws_row: 40, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(&theirs, size).unwrap();
    (File::from(ours), theirs)
}

/// What was shown, without escape sequences (`ESC [ … letter`).
fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut out = String::new();
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character == '\x1b' {
            if characters.next() == Some('[') {
                characters.find(char::is_ascii_alphabetic);
            }
        } else {
            out.push(character);
        }
    }
    out
}

/// A directory with the pairs of two families and one model that fits no other.
fn models() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (from, to) in [
        ("llama/primary", "llama-base"),
        ("llama/secondary", "llama chat"),
        ("gpt2/primary", "gpt2-a"),
        ("gpt2/secondary", "gpt2-b"),
    ] {
        let to = dir.path().join("models").join(to);
        fs::create_dir_all(&to).unwrap();
        for name in listing(&fixture(from)) {
            fs::copy(fixture(from).join(&name), to.join(&name)).unwrap();
        }
    }
    Dict::new().noise("w", &[2], 1).model(dir.path(), "alone", "{}");
    dir
}

#[test]
fn a_merge_is_made_end_to_end_by_keys() {
    let dir = models();
    let mut terminal = Terminal::start(dir.path());
    terminal.see("4 models found, and 1 that fit no other").see("Primary").see("llama-base");
    terminal.see("esc leaves").press("base").see("base").see("esc leaves").press(ENTER);
    // Only what fits is offered.
    terminal.see("Secondary").see("models/llama chat  159k  float16  vocabulary 520");
    terminal.see("esc leaves");
    let offered = shown(&terminal.history[terminal.pressed..]);
    assert!(!offered.contains("gpt2"), "{offered}");
    terminal.press(ENTER).see("(0.5)").press("1.5").see("1.5").press(ENTER);
    terminal.see("t must lie in 0..=1, got `1.5`");
    terminal.press(&BACKSPACE.repeat(3)).see("(0.5)").press("0.3").see("0.3").press(ENTER);
    terminal.see("(llama-base-llama_chat-t0.3)").press("models/gpt2-a").see("gpt2-a").press(ENTER);
    terminal.see("output exists").press(&BACKSPACE.repeat(13)).see("t0.3)").press(ENTER);
    terminal.see("512 + 8 rows in the primary, 520 rows in the secondary (--extend gradient)");
    terminal.see("llama-base-llama_chat-t0.3`, ").see("Merge now?");
    let line = "merge models/llama-base 'models/llama chat' -o llama-base-llama_chat-t0.3 -t 0.3";
    let all = shown(&terminal.history);
    assert!(all.contains(line), "{all}");
    assert!(!dir.path().join("llama-base-llama_chat-t0.3").exists());
    terminal.press(ENTER).see("merged 21 tensors");
    let (status, all) = terminal.end();
    assert_eq!(status.code(), Some(0), "{all}");

    let [a, b] = ["llama/primary", "llama/secondary"].map(fixture);
    let expected = dir.path().join("expected");
    merge(&a, &b, &expected, &["-t", "0.3"]).success();
    let child = dir.path().join("llama-base-llama_chat-t0.3");
    assert!(child_bytes(&child) == child_bytes(&expected));
}

#[test]
fn several_t_make_several_children() {
    let dir = models();
    let mut terminal = Terminal::start(dir.path());
    terminal.see("esc leaves").press(ENTER).see("Secondary").see("esc leaves").press(ENTER);
    terminal.see("(0.5)").press("0.25, 0.75").see("0.75").press(ENTER);
    terminal.see("(gpt2-a-gpt2-b-t{t})").press(ENTER).see("Merge now?").press("y\r").see("merged");
    let (status, all) = terminal.end();
    assert_eq!(status.code(), Some(0), "{all}");
    assert!(all.contains("-o 'gpt2-a-gpt2-b-t{t}' -t 0.25,0.75"), "{all}");
    for t in ["0.25", "0.75"] {
        assert!(dir.path().join(format!("gpt2-a-gpt2-b-t{t}/config.json")).exists(), "{t}");
    }
}

#[test]
fn t_by_layer_is_one_of_the_usual_schedules_drawn_over_the_layers() {
    let dir = models();
    let mut terminal = Terminal::start(dir.path());
    terminal.see("esc leaves").press(ENTER).see("Secondary").see("esc leaves").press(ENTER);
    terminal.see("(0.5)").press("by layr").see("layr").press(ENTER).see("t must lie in 0..=1");
    terminal.press(BACKSPACE).see("lay").press("er").see("er").press(ENTER);
    terminal.see("t by layer:").see("as in most recipes").see("esc leaves").press(ENTER);
    // Two layers: one bar each.
    terminal.see("attn").see("▁█").see("mlp").see("█▁").see("other tensors");
    terminal.see("(gpt2-a-gpt2-b-by-layer)").press(ENTER).see("Merge now?");
    let flags = ["-t", "0.5", "--t-for", "attn=0,0.5,0.3,0.7,1", "--t-for", "mlp=1,0.5,0.7,0.3,0"];
    let line = format!("-o gpt2-a-gpt2-b-by-layer {}", flags.join(" "));
    let all = shown(&terminal.history);
    assert!(all.contains(&line), "{all}");
    terminal.press(ENTER).see("merged");
    let (status, all) = terminal.end();
    assert_eq!(status.code(), Some(0), "{all}");
    let expected = dir.path().join("expected");
    merge(&fixture("gpt2/primary"), &fixture("gpt2/secondary"), &expected, &flags).success();
    assert!(child_bytes(&dir.path().join("gpt2-a-gpt2-b-by-layer")) == child_bytes(&expected));
}

#[test]
fn escape_and_no_leave_without_an_error_and_with_nothing_made() {
    let dir = models();
    let before = listing(dir.path());
    let mut terminal = Terminal::start(dir.path());
    terminal
        .see("esc leaves")
        .press(DOWN)
        .see("> models/gpt2-b")
        .press(ESCAPE)
        .see("Nothing was made.");
    assert_eq!(terminal.end().0.code(), Some(0));
    let mut terminal = Terminal::start(dir.path());
    terminal.see("esc leaves").press(ENTER).see("Secondary").see("esc leaves").press(ENTER);
    terminal.see("(0.5)").press(ENTER).see("-t0.5)").press(ENTER).see("Merge now?").press("n\r");
    terminal.see("Nothing was made.");
    assert_eq!(terminal.end().0.code(), Some(0));
    assert_eq!(listing(dir.path()), before);
}

#[test]
fn control_c_ends_the_tool_as_the_signal_would() {
    let dir = models();
    let before = listing(dir.path());
    let mut terminal = Terminal::start(dir.path());
    terminal.see("esc leaves").press(ENTER).see("Secondary").see("esc leaves").press(CTRL_C);
    terminal.see("error: interrupted, nothing was made");
    let (status, all) = terminal.end();
    // What a shell shows as 130.
    assert_eq!(status.signal(), Some(2), "{all}");
    assert_eq!(listing(dir.path()), before);
}

#[test]
fn without_models_that_fit_it_says_how_to_go_on() {
    let dir = tempfile::tempdir().unwrap();
    for (model, words) in [
        (None, "error: no models below the current directory"),
        (Some("alone"), "error: no two models below the current directory fit each other"),
    ] {
        if let Some(name) = model {
            Dict::new().noise("w", &[2], 1).model(dir.path(), name, "{}");
        }
        let mut terminal = Terminal::start(dir.path());
        terminal.see(words).see("llm-slerp-merge merge PRIMARY SECONDARY -o OUT");
        assert_eq!(terminal.end().0.code(), Some(66));
    }
}

#[test]
fn without_a_terminal_nobody_is_asked() {
    let said = tool::<&str>([]).refused(2);
    assert!(said.contains("Usage: llm-slerp-merge"), "{said}");
}
