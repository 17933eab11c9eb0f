//! Says where libtorch is: to the linker, to the finished program, and to whoever has none yet.
//!
//! `torch-sys` links libtorch, but its run path ends with its own targets and does not reach the
//! programs of a dependent (tch-rs#907), so it is repeated here. This script has no dependencies,
//! `torch-sys` included, so that it runs before `torch-sys` can fail in more words than one needs.

use std::path::{Path, PathBuf};
use std::{env, fs};

/// The libtorch that `tch` is made for.
const VERSION: &str = "2.11.0";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // Floors 0 to 3 know nothing of torch.
    if env::var_os("CARGO_FEATURE_TORCH").is_none() {
        return;
    }
    println!("cargo::rerun-if-env-changed=LIBTORCH");
    match find_libtorch() {
        Ok(lib) => write_run_path(&lib),
        // Cargo stops here, and without an exit status prints nothing but the sentence.
        Err(sentence) => println!("cargo::error={sentence}"),
    }
}

/// The directory with `libtorch_cpu.so`, checked as far as a glance can.
fn find_libtorch() -> Result<PathBuf, String> {
    let root = env::var_os("LIBTORCH").map(PathBuf::from).filter(|root| root.is_absolute());
    let root =
        root.ok_or("LIBTORCH is no absolute path: unset it and run cargo in the repository")?;
    let library = root.join("lib/libtorch_cpu.so");
    // Cargo takes a file that isn't there for one that has changed, so this also ends a refusal.
    println!("cargo::rerun-if-changed={}", library.display());
    let advice = "run `scripts/libtorch.sh`, which puts it into `libtorch/`";
    if !library.exists() {
        return Err(format!("libtorch is missing (no `{}`): {advice}", library.display()));
    }
    // libtorch's own archives have `build-version`, Python's packages have `version.py`.
    let read = |name| fs::read_to_string(root.join(name));
    match read("build-version").or_else(|_| read("version.py")) {
        Ok(text) if !text.contains(VERSION) => {
            Err(format!("the libtorch in `{}` is not {VERSION}: {advice}", root.display()))
        }
        Ok(_) | Err(_) => Ok(root.join("lib")),
    }
}

/// A program finds libtorch beside itself wherever it is taken, in `target/` also in a repository that
/// was moved, and else where it was built.
/// On Linux this is DT_RPATH, for an LD_LIBRARY_PATH to another PyTorch must not come first.
fn write_run_path(lib: &Path) {
    if env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
        println!("cargo::rustc-link-arg=-Wl,--disable-new-dtags");
        for place in ["libtorch", "../libtorch", "../../libtorch", "../../../libtorch"] {
            println!("cargo::rustc-link-arg=-Wl,-rpath,$ORIGIN/{place}/lib");
        }
    }
    println!("cargo::rustc-link-arg=-Wl,-rpath,{}", lib.display());
}
