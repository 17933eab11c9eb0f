//! The arguments of `batch`.

use std::path::PathBuf;

use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct BatchArgs {
    /// JSON file that names the merges; paths in it are relative to it
    #[arg(required_unless_present = "schema")]
    pub(crate) manifest: Option<PathBuf>,
    /// Sweeps that run at once; threads and memory are divided among them, devices shared out
    #[arg(short, long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) jobs: u16,
    /// Worker threads over all sweeps at once, for merges that name none [default: number of cores]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: Option<u16>,
    /// Make the merges that can be made, though others can't
    #[arg(long)]
    pub(crate) keep_going: bool,
    /// Start nothing more once a merge failed
    #[arg(long)]
    pub(crate) fail_fast: bool,
    /// Add one JSON line per merge to this file, on disk as soon as the merge has its result
    #[arg(long, value_name = "FILE")]
    pub(crate) record: Option<PathBuf>,
    /// Plan every merge, say what would be done, and stop
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Make the merge at position K alone, from 0; auto takes K from SLURM_ARRAY_TASK_ID or
    /// JOB_COMPLETION_INDEX. The exit code is then that merge's own
    #[arg(long, value_name = "K", value_parser = parse_index)]
    pub(crate) index: Option<Index>,
    /// Print how many merges the manifest has
    #[arg(long, conflicts_with_all = ["index", "schema", "dry_run"])]
    pub(crate) count: bool,
    /// Print the JSON Schema of manifests
    #[arg(long, conflicts_with = "index")]
    pub(crate) schema: bool,
}

/// Which merge runs alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Index {
    /// The one at this position.
    At(usize),
    /// The one that the scheduler's environment names.
    Auto,
}

fn parse_index(text: &str) -> Result<Index, String> {
    match text {
        "auto" => Ok(Index::Auto),
        _ => text.parse().map(Index::At).map_err(|_| "expected a whole number or auto".to_owned()),
    }
}
