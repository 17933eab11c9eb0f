#!/usr/bin/env bash
# Puts libtorch 2.11.0 into libtorch/, where .cargo/config.toml points. Does nothing where it is already.
set -euo pipefail
usage() {
    cat <<'TEXT'
usage: scripts/libtorch.sh [--cuda] [--system | --from DIR]

Puts libtorch 2.11.0 into libtorch/ (545 MB to fetch with pip, 500 MB unpacked).

  --cuda       also the CUDA libraries, for a machine with an NVIDIA GPU (2.5 GB to fetch, 3.4 GB unpacked)
  --system     fetch nothing: link the PyTorch 2.11.0 that `python3` imports, with CUDA if it has it
  --from DIR   the same for a PyTorch or libtorch 2.11.0 at DIR (the directory that holds lib/ and include/;
               without include/ a program that is built runs, and none can be built)

An exported LIBTORCH wins over libtorch/; then there is nothing to do.
TEXT
}
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

version=2.11.0
# Everything is made in here, on the same disk, and renamed when whole.
work=.cache/libtorch
new=$work/new

cuda=false system=false from=
while (($# > 0)); do
    case $1 in
    --cuda) cuda=true ;;
    --system) system=true ;;
    --from)
        from=${2:?--from needs a directory}
        shift
        ;;
    -h | --help)
        usage
        exit
        ;;
    *)
        usage >&2
        exit 2
        ;;
    esac
    shift
done

# is_whole: libtorch/ is of this version, has what a build needs and, where asked for, CUDA.
is_whole() {
    [[ -f libtorch/build-version && $(<libtorch/build-version) == "$version" ]] &&
        [[ -e libtorch/lib/libtorch_cpu.so && -d libtorch/include/torch/csrc ]] &&
        { ! $cuda || [[ -e libtorch/cuda/torch/lib/libtorch_cuda.so ]]; }
}

# find_pip: sets `pip` to one that works; a virtual environment lends a pip where the system has none.
find_pip() {
    command -v python3 >/dev/null ||
        die "python3 is missing, whose pip fetches libtorch: install it (Debian, Ubuntu: apt-get install python3-pip)," \
            "or give a libtorch $version with --from DIR"
    pip=(python3 -m pip)
    "${pip[@]}" --version >/dev/null 2>&1 && return
    say "python3 has no pip: making a virtual environment for it"
    pip=("$work/venv/bin/python3" -m pip)
    "${pip[@]}" --version >/dev/null 2>&1 || python3 -m venv --clear "$work/venv" >/dev/null 2>&1 ||
        die "pip is missing, which fetches libtorch: install it (Debian, Ubuntu: apt-get install python3-pip)," \
            "or give a libtorch $version with --from DIR"
}

# need_room MB: enough room for that many.
need_room() {
    local free
    free=$(($(df -Pk . | awk 'NR == 2 { print $4 }') / 1000))
    ((free >= $1)) || die "not enough room here: setting up libtorch takes $1 MB, $free MB are free"
}

is_intact() { [[ -f $1 ]] && echo "$2  $1" | sha256sum --check --status; }

# fetch LIST: every wheel of the list into $work/wheels, whole wheels of an interrupted run excepted.
fetch() {
    local requirement hash platform size name wheel count=0 total
    total=$(cat "$@" | grep -vc '^#')
    mkdir -p "$work/wheels" "$work/tmp"
    while read -r requirement hash _ platform size; do
        count=$((count + 1))
        name=${requirement//==/-}
        # A wheel's name has underscores for its project's hyphens; the last hyphen is the version's.
        wheel=("$work/wheels/$(sed 's/-\([^-]*\)$/=\1/; s/-/_/g; s/=/-/' <<<"$name")"-*.whl)
        if is_intact "${wheel[0]}" "${hash#*:}"; then
            say "$count of $total: $name is here already"
            continue
        fi
        say "$count of $total: fetching $name, $size MB"
        echo "$requirement $hash" >"$work/wheel.txt"
        TMPDIR=$PWD/$work/tmp "${pip[@]}" --disable-pip-version-check download --no-deps --only-binary=:all: \
            --python-version 3.11 --implementation cp --abi cp311 --platform "$platform" \
            --require-hashes -r "$work/wheel.txt" -d "$work/wheels" >&2 ||
            die "pip could not fetch $requirement; run this again to go on, after `python3 -m pip install --upgrade pip` if pip is old"
    done < <(cat "$@" | grep -v '^#')
}

# unpack: from the fetched wheels, the files that a build or a run needs.
unpack() {
    say "unpacking into libtorch/"
    python3 - "$new" "$cuda" "$work"/wheels/*.whl <<'PYTHON'
import os, re, shutil, sys, time, zipfile

new, cuda, wheels = sys.argv[1], sys.argv[2] == "true", sys.argv[3:]
# Which member goes where. CUDA keeps the wheels' own layout, through which its libraries find each other.
places = [
    (r"torch/(include/.*)", r"\1"),
    (r"torch/(lib/(?:libtorch_cpu|libc10)\.so|lib/libgomp\.so\.1)", r"\1"),
    (r"nvidia/cu13/(lib/(?:libcudart|libcupti)\.so\.13)", r"\1"),
]
if cuda:
    unneeded = r"(?!libnvblas|libcufftw|libcusolverMg|libcufile_rdma|nvshmem_|[^/]*\.alt\.)"
    places += [
        (r"(torch/lib/lib(?:torch_cuda(?:_linalg)?|torch_nvshmem|c10_cuda|caffe2_nvrtc)\.so)", r"cuda/\1"),
        (r"(nvidia/(?!cu13/lib/libnvperf|cu13/lib/libpcsampling|cu13/lib/libcheckpoint)\w+/lib/" + unneeded
         + r"[^/]*\.so\.[\d.]+)", r"cuda/\1"),
    ]
for wheel in wheels:
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.infolist():
            for pattern, place in places:
                match = re.fullmatch(pattern, member.filename)
                if match and not member.is_dir():
                    path = os.path.join(new, match.expand(place))
                    os.makedirs(os.path.dirname(path), exist_ok=True)
                    with archive.open(member) as source, open(path, "wb") as target:
                        shutil.copyfileobj(source, target, 1 << 20)
                    # The wheel's own date, so that cargo sees no change where there is none.
                    written = time.mktime(member.date_time + (0, 0, -1))
                    os.utime(path, (written, written))
                    break
PYTHON
    # The wheel's libtorch.so wants CUDA's libraries too; all that it holds besides is libtorch_cpu.so.
    ln -s libtorch_cpu.so "$new/lib/libtorch.so"
    if $cuda; then
        # What both halves need is there once.
        local name
        for name in libtorch_cpu.so libc10.so libgomp.so.1; do ln -s "../../../lib/$name" "$new/cuda/torch/lib/$name"; done
        for name in libcudart.so.13 libcupti.so.13; do
            ln -s "../../../../lib/$name" "$new/cuda/nvidia/cu13/lib/$name"
        done
    fi
}

# link_all FILES...: links into the directory that is the last of them; what isn't there is left out.
link_all() {
    local to=${*: -1} name
    mkdir -p "$to"
    for name in "${@:1:$#-1}"; do
        if [[ -e $name ]]; then ln -sf "$name" "$to/"; fi
    done
}

# link DIR: the same directory, of links into an installed PyTorch or an unpacked libtorch. Directories are made here
# and files linked one by one: a library looks for others from the directory that it was found in, and in an environment
# of links (`uv` with `--link-mode symlink`, Nix, Spack) the others are not where its own link leads to.
link() {
    local torch packages name found
    torch=$(cd "$called_from" && cd "$1" 2>/dev/null && pwd) || die "no such directory: $1"
    packages=${torch%/*}
    [[ -e $torch/lib/libtorch_cpu.so ]] || die "$torch is no PyTorch or libtorch: it has no lib/libtorch_cpu.so"
    found=$(grep -ohm1 '[0-9][0-9.]*[0-9]' "$torch/build-version" 2>/dev/null ||
        sed -n "s/^__version__ = '\([0-9.]*\).*/\1/p" "$torch/version.py" 2>/dev/null || true)
    [[ $found == "$version" ]] || die "$torch is version ${found:-unknown}; $version is needed"
    mkdir -p "$new/lib"
    if [[ -d $torch/include/torch/csrc ]]; then
        ln -s "$torch/include" "$new/include"
    else
        say "it has no headers: a program that is built runs with it, and none can be built"
    fi
    for name in "$torch"/lib/*.so* "$packages"/nvidia/*/lib/lib{cudart,cupti}.so.*; do
        case ${name##*/} in
        # CUDA's half is opened at run time, and only where there is a GPU.
        libtorch.so | libtorch_cuda* | libc10_cuda* | libtorch_nvshmem* | libcaffe2_nvrtc* | *_python*) ;;
        *) link_all "$name" "$new/lib" ;;
        esac
    done
    ln -s libtorch_cpu.so "$new/lib/libtorch.so"
    if [[ -e $torch/lib/libtorch_cuda.so ]]; then
        link_all "$torch"/lib/*.so* "$new/cuda/torch/lib"
        link_all "$torch"/{version.py,build-version} "$new/cuda/torch"
        for name in "$packages"/nvidia/*/lib; do
            if [[ -d $name ]]; then link_all "$name"/*.so* "$new/cuda/${name#"$packages"/}"; fi
        done
    elif $cuda; then
        die "$torch has no libtorch_cuda.so: it is a build without CUDA"
    fi
}

# check_loads LIBRARY: everything that it needs is found.
check_loads() {
    local missing
    missing=$(ldd "$1" 2>&1 | grep 'not found' | grep -v 'libcuda\.so\.1 ' || true)
    [[ -z $missing ]] || die "$1 can't be loaded on this machine:"$'\n'"$missing"
}

if [[ -n ${LIBTORCH:-} ]] && ! $cuda && ! $system && [[ -z $from ]]; then
    [[ -e $LIBTORCH/lib/libtorch_cpu.so ]] ||
        die "LIBTORCH is set to `$LIBTORCH`, which has no lib/libtorch_cpu.so: unset it or correct it"
    say "LIBTORCH is set: using `$LIBTORCH`"
    exit
fi
[[ $(uname -sm) == "Linux x86_64" ]] ||
    die "this script serves Linux on x86-64 only: unpack a libtorch $version yourself and export LIBTORCH"

mkdir -p "$work"
# A second run waits for the first and then finds its work done.
exec 9>"$work/lock"
if command -v flock >/dev/null; then flock 9; fi
if [[ -z $from ]] && ! $system && is_whole; then
    say "libtorch $version is in libtorch/"
    exit
fi
rm -rf "$new" "$work/tmp"
if $system; then
    from=$(python3 -c 'import importlib.util as u; s = u.find_spec("torch"); print(s.submodule_search_locations[0] if s else "")') ||
        die "python3 could not be asked for its PyTorch"
    [[ -n $from ]] || die "python3 has no PyTorch: activate the environment that has it, or leave --system out"
fi
if [[ -n $from ]]; then
    say "linking $from"
    link "$from"
else
    lists=(scripts/libtorch.txt)
    room=1200
    if $cuda; then lists+=(scripts/libtorch-cuda.txt) room=6500; fi
    need_room "$room"
    find_pip
    fetch "${lists[@]}"
    unpack
fi
check_loads "$new/lib/libtorch_cpu.so"
if [[ -e $new/cuda ]]; then check_loads "$new/cuda/torch/lib/libtorch_cuda.so"; fi
echo "$version" >"$new/build-version"
if [[ -e libtorch || -L libtorch ]]; then
    rm -rf "$work/old"
    mv libtorch "$work/old"
fi
mv "$new" libtorch
rm -rf "$work/old" "$work/wheels" "$work/tmp" "$work/wheel.txt"
say "libtorch $version is in libtorch/"
