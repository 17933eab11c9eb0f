//! `scripts/libtorch.sh`, which puts libtorch where the build and the program look for it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Compiles a library of nothing that needs `needs` and looks for them in `run_path`.
fn library(path: &Path, needs: &[&Path], run_path: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
    let mut command = Command::new(compiler);
    command.args([
        "-shared",
        "-fPIC",
        "-Wl,--no-as-needed",
        "-x",
        "c++",
        "/dev/null",
        "-x",
        "none",
    ]);
    command.args(needs).arg("-o").arg(path).arg(format!("-Wl,-rpath,{run_path}"));
    command.arg(format!("-Wl,-soname,{}", path.file_name().unwrap().to_str().unwrap()));
    assert!(command.status().unwrap().success());
}

/// A PyTorch with CUDA as pip installs it, of empty libraries, whose files are in stores of their own
/// and linked into the environment one by one, as `uv pip install --link-mode symlink` does it.
fn environment(dir: &Path) -> PathBuf {
    let (torch, cuda) = (dir.join("store/1/torch"), dir.join("store/2/nvidia/cu13/lib"));
    let runtime = cuda.join("libcudart.so.13");
    library(&runtime, &[], "$ORIGIN");
    let run_path = "$ORIGIN/../../nvidia/cu13/lib:$ORIGIN";
    library(&torch.join("lib/libtorch_cpu.so"), &[&runtime], run_path);
    library(&torch.join("lib/libtorch_cuda.so"), &[&runtime], run_path);
    fs::write(torch.join("version.py"), "__version__ = '2.11.0+cu130'\n").unwrap();
    let packages = dir.join("environment/packages");
    let links = [
        "1/torch/lib/libtorch_cpu.so",
        "1/torch/lib/libtorch_cuda.so",
        "1/torch/version.py",
        "2/nvidia/cu13/lib/libcudart.so.13",
    ];
    for link in links {
        let place = packages.join(&link[2..]);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        symlink(dir.join("store").join(link), place).unwrap();
    }
    packages.join("torch")
}

/// A checkout in `dir` of what the script needs, and what `--from` does there.
fn link(dir: &Path, from: &Path) -> Output {
    let scripts = dir.join("checkout/scripts");
    fs::create_dir_all(&scripts).unwrap();
    for name in ["libtorch.sh", "lib.sh"] {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts").join(name);
        fs::copy(source, scripts.join(name)).unwrap();
    }
    let mut command = Command::new(scripts.join("libtorch.sh"));
    command.env_remove("LIBTORCH").arg("--from").arg(from).output().unwrap()
}

/// What the libraries that `library` needs are found as.
fn needs(library: &Path) -> String {
    let output = Command::new("ldd").arg(library).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn an_environment_of_links_and_without_headers_is_linked_with_cuda() {
    let dir = tempfile::tempdir().unwrap();
    let torch = environment(dir.path());
    let output = link(dir.path(), &torch);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    assert!(said.contains("it has no headers"), "{said}");
    let libtorch = dir.path().join("checkout/libtorch");
    for library in ["lib/libtorch_cpu.so", "cuda/torch/lib/libtorch_cuda.so"] {
        let needs = needs(&libtorch.join(library));
        assert!(needs.contains("libcudart.so.13 => /"), "{library}: {needs}");
    }
    assert_eq!(fs::read_to_string(libtorch.join("build-version")).unwrap(), "2.11.0\n");
}

#[test]
fn a_link_to_a_whole_package_is_followed_from_where_it_stands() {
    let dir = tempfile::tempdir().unwrap();
    environment(dir.path());
    let packages = dir.path().join("linked");
    fs::create_dir(&packages).unwrap();
    symlink(dir.path().join("store/1/torch"), packages.join("torch")).unwrap();
    symlink(dir.path().join("store/2/nvidia"), packages.join("nvidia")).unwrap();
    let output = link(dir.path(), &packages.join("torch"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let cuda = dir.path().join("checkout/libtorch/cuda/torch/lib/libtorch_cuda.so");
    assert!(needs(&cuda).contains("libcudart.so.13 => /"));
}

#[test]
fn another_version_and_what_is_no_libtorch_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let torch = environment(dir.path());
    fs::remove_file(torch.join("version.py")).unwrap();
    fs::write(torch.join("version.py"), "__version__ = '2.10.0'\n").unwrap();
    for (from, words) in [
        (torch.as_path(), "is version 2.10.0; 2.11.0 is needed"),
        (dir.path(), "is no PyTorch or libtorch"),
        (Path::new("/nowhere"), "no such directory: /nowhere"),
    ] {
        let output = link(dir.path(), from);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && said.contains(words), "{said}");
    }
    assert!(!dir.path().join("checkout/libtorch").exists());
}
