//! What `devices` and `--device` say where CUDA is not, or not whole.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::{Run, command, fixture, run, tool};

/// A driver that answers what the environment says.
const DRIVER: &str = r#"
#include <cstdlib>
#include <cstring>
static int value(const char *name, int other) {
    const char *text = std::getenv(name);
    return text ? std::atoi(text) : other;
}
extern "C" {
int cuInit(unsigned) { return value("DRIVER_INIT", 0); }
int cuDriverGetVersion(int *version) { *version = value("DRIVER_VERSION", 13000); return 0; }
int cuDeviceGetCount(int *count) { *count = value("DRIVER_DEVICES", 2); return 0; }
int cuDeviceGet(int *device, int index) { *device = index; return 0; }
int cuDeviceGetName(char *name, int length, int) { std::strncpy(name, "Pretended GPU", length); return 0; }
int cuDeviceTotalMem_v2(size_t *bytes, int) { *bytes = size_t(8) << 30; return 0; }
}
"#;

/// Puts a driver's library into a directory, before any other on this machine.
fn driver(dir: &Path) {
    let source = dir.join("driver.cpp");
    fs::write(&source, DRIVER).unwrap();
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
    let status = Command::new(compiler)
        .args(["-shared", "-fPIC", "-o"])
        .arg(dir.join("libcuda.so.1"))
        .arg(&source)
        .status()
        .unwrap();
    assert!(status.success());
}

/// The tool with the libraries of `dir`, and without the PyTorch installations of whoever runs this.
fn without_pytorch(dir: &Path) -> Command {
    let mut command = command();
    command.env("LD_LIBRARY_PATH", dir).env("HOME", dir).env("PATH", dir).env("LIBTORCH", dir);
    for variable in ["VIRTUAL_ENV", "CONDA_PREFIX", "CUDA_VISIBLE_DEVICES"] {
        command.env_remove(variable);
    }
    command
}

/// The same, asked to merge on a device. The parents do not exist: devices are looked at first.
fn merge_on(dir: &Path, device: &str, variables: &[(&str, &str)]) -> Run {
    let mut command = without_pytorch(dir);
    command.envs(variables.iter().copied());
    run(command.args(["merge", "no-such-a", "no-such-b", "-o", "out", "--device", device]))
}

#[test]
fn a_missing_driver_is_69_and_named_before_the_parents_are_opened() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("libcuda.so.1"), "this is no library").unwrap();
    for device in ["cuda", "cuda:1", "cuda:0,1"] {
        let said = merge_on(dir.path(), device, &[]).refused(69);
        assert!(
            said.starts_with("error: CUDA is not available: NVIDIA's driver is missing"),
            "{said}"
        );
        assert_eq!(said.lines().count(), 2, "{said}");
    }
    let mut plan = without_pytorch(dir.path());
    let said = run(plan.args(["plan", "no-such-a", "no-such-b", "--device", "cuda"])).refused(69);
    assert!(said.contains("driver is missing"), "{said}");
}

#[test]
fn auto_takes_the_cpu_and_says_why_in_the_log() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("libcuda.so.1"), "this is no library").unwrap();
    let out = dir.path().join("child");
    let mut command = without_pytorch(dir.path());
    command.arg("merge").args(["primary", "secondary"].map(|side| fixture("gpt2").join(side)));
    let run = run(command.arg("-o").arg(&out).args(["--no-fsync", "-v"])).success();
    let line = run.stderr.lines().find(|line| line.contains("computing on the CPU"));
    assert!(line.unwrap().contains("NVIDIA's driver is missing"), "{}", run.stderr);
    let kept = fs::read_to_string(out.join("slerp_merge.json")).unwrap();
    let kept: serde_json::Value = serde_json::from_str(&kept).unwrap();
    assert_eq!(kept["devices"], serde_json::json!(["cpu"]));
}

#[test]
fn a_driver_without_devices_is_69() {
    let dir = tempfile::tempdir().unwrap();
    driver(dir.path());
    for variables in [
        [("DRIVER_INIT", "100"), ("CUDA_VISIBLE_DEVICES", "")],
        [("DRIVER_DEVICES", "0"), ("CUDA_VISIBLE_DEVICES", "")],
    ] {
        let said = merge_on(dir.path(), "cuda", &variables).refused(69);
        let expected = "there is no GPU that the driver can use (CUDA_VISIBLE_DEVICES is ``)";
        assert!(said.contains(expected), "{said}");
    }
    let said = merge_on(dir.path(), "cuda", &[("DRIVER_INIT", "999")]).refused(69);
    assert!(said.contains("NVIDIA's driver does not start, error 999"), "{said}");
}

#[test]
fn a_missing_library_and_one_of_another_version_are_69() {
    let dir = tempfile::tempdir().unwrap();
    driver(dir.path());
    let seen = run(without_pytorch(dir.path()).args(["devices", "--json"])).success().json();
    assert_eq!(seen["driver_cuda"], "13.0");
    assert_eq!(seen["devices"][1]["model"], "Pretended GPU");
    assert_eq!(seen["devices"][1]["total_bytes"], 8u64 << 30);
    assert_eq!(seen["cuda_available"], false);
    if seen["cuda_library"].is_string() {
        // A whole CUDA, in a place that can't be hidden: the pretended driver stops it.
        merge_on(dir.path(), "cuda", &[]).refused(69);
        return;
    }
    let said = merge_on(dir.path(), "cuda", &[]).refused(69);
    assert!(said.contains("CUDA is not available: libtorch_cuda.so is missing"), "{said}");
    assert!(said.contains("hint: `scripts/libtorch.sh --cuda` fetches it"), "{said}");
    let lib = dir.path().join("lib");
    fs::create_dir(&lib).unwrap();
    fs::write(lib.join("libtorch_cuda.so"), "").unwrap();
    fs::write(dir.path().join("version.py"), "__version__ = '2.10.0+cu128'\n").unwrap();
    let said = merge_on(dir.path(), "cuda", &[]).refused(69);
    assert!(said.contains("libtorch_cuda.so is of another version"), "{said}");
    assert!(said.contains("expected 2.11.0, found 2.10.0+cu128"), "{said}");
    fs::write(dir.path().join("version.py"), "__version__ = '2.11.0+cu126'\n").unwrap();
    fs::write(lib.join("libtorch_cpu.so"), "another build").unwrap();
    let said = merge_on(dir.path(), "cuda", &[]).refused(69);
    assert!(said.contains("libtorch_cuda.so is of another build"), "{said}");
}

#[test]
fn devices_says_what_it_sees_and_succeeds_without_any() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("libcuda.so.1"), "this is no library").unwrap();
    let text = run(without_pytorch(dir.path()).arg("devices")).success().stdout;
    for words in ["libtorch       2.11.0", "not available: NVIDIA's driver is missing", "cores"] {
        assert!(text.contains(words), "{text}");
    }
    let mut stand_ins = command();
    stand_ins.env("LLM_SLERP_MERGE_TEST_DEVICES", "devices=2,memory=64MiB");
    let text = run(stand_ins.arg("devices")).success().stdout;
    assert!(text.contains("cuda:1         stand-in for tests, on the CPU, 67.1 MB free"), "{text}");
}

#[test]
fn devices_that_are_not_there_or_not_words_are_refused() {
    let mut stand_ins = command();
    stand_ins.env("LLM_SLERP_MERGE_TEST_DEVICES", "devices=2");
    let words = ["merge", "no-such-a", "no-such-b", "-o", "out", "--device", "cuda:0,2"];
    let said = run(stand_ins.args(words)).refused(69);
    assert!(said.contains("there is no cuda:2: expected cuda:0 to cuda:1"), "{said}");
    for (option, value, words) in [
        ("--device", "gpu", "expected auto, cpu, cuda or cuda:N[,M...], got `gpu`"),
        ("--device", "cuda:1,1", "cuda:1 is named twice"),
        ("--device-memory", "1MB", "at least 16MiB are needed"),
    ] {
        let said = tool(["merge", "a", "b", "-o", "out", option, value]).refused(2);
        assert!(said.contains(words), "{said}");
    }
}
