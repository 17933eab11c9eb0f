//! Integration tests: the real binary on real checkpoint files, no Python.
#![expect(
    clippy::unwrap_used,
    reason = "a test that unwraps an Err fails, which is what it is for"
)]

/// `batch`: manifests, sweeps, re-runs, kills.
mod batch;
/// Writes small checkpoints: inputs for what the fixtures do not have.
mod build;
/// The engine of GPUs, with the CPU in the GPU's place.
mod device;
/// What `devices` and `--device` say where CUDA is not, or not whole.
mod devices;
/// Full disks, limits, changed parents, removed directories: the right code, and nothing is left.
mod faults;
/// `find`, and parents by their names in the Hub's cache.
mod find;
/// `completions` and `man`, and what the help says.
mod generate;
/// Hostile files: refused by the right rule, nothing in them is run.
mod hostile;
/// The graph of imports between the files of `src`.
mod imports;
/// What `inspect` says of files that torch wrote, and that their values arrive.
mod inspect;
/// What holds for every merge: the ends, the same parent twice, threads and memory, several t.
mod invariants;
/// `scripts/libtorch.sh`, on environments of links.
mod libtorch;
/// The children of the fixtures, against those worked out in float64.
mod merge;
/// A merge that is stopped when it is half done.
mod midway;
/// Tensors that one parent lacks, integers, tied names.
mod missing;
/// Paths of every kind, and what of the small files reaches the child.
mod names;
/// Outputs that are refused, and outputs that are replaced.
mod outputs;
/// The tool alone on a terminal, driven by keys.
mod prompts;
/// Recipes for mergekit.
mod recipes;
/// Parents that are refused.
mod refusals;
/// Interrupted merges that are resumed.
mod resume;
/// Parents and children in safetensors, and models that are converted.
mod safetensors;
/// t by name and by layer.
mod schedules;
/// SIGINT, SIGTERM and SIGHUP.
mod signals;
/// Parents that are fine, and refused where the user is strict.
mod strict;
/// Runs the tool, reads checkpoints, looks at directories.
mod support;
/// House rules that no compiler checks.
mod tidy;
/// Rounding, and distances in units in the last place.
mod ulp;
/// `verify`: what is found in whole and damaged models, and that no flipped bit goes unnoticed.
mod verify;
/// Vocabularies of different length.
mod vocab;
/// Parents as people report them in public.
mod wild;
/// Vocabularies with different words in a row, and rows merged by word.
mod words;
