//! Defines the command line, and parses its values. Nothing here opens a file.

mod values;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueHint};

use crate::checkpoint::{Opening, Strictness, TokenizerMode};
use crate::engine::DeviceChoice;
use crate::format::{OpaqueName, OpaqueNames};
use crate::merge::{Child, Extend, Filter, MergeOptions, Method, Missing, VocabMode, parse_t};

pub(crate) use crate::cli::args::values::Index;
use crate::cli::args::values::{
    ChildDType, ChildFormat, dtype_parser, format_parser, parse_device_memory, parse_index,
    parse_size,
};

/// Exit codes, at the end of `--help`.
const AFTER_HELP: &str = "\
Exit codes: 0 done; 1 some merge of a batch failed; 2 usage; 65 bad or unfitting parents; 66 input \
not found; 69 device unavailable; 70 a bug of ours; 71 out of memory or file handles; 73 output \
refused; 74 I/O error while working; 75 try again; 130, 143 interrupted.";

/// Merge two language-model checkpoints (.bin, safetensors) by spherical linear interpolation.
///
/// The child is a complete model directory. Everything is decided from the files' headers before a
/// byte is written, and the child appears at its place whole or not at all. Without arguments, on a
/// terminal, the tool looks for models below the current directory and asks for the rest.
#[derive(Debug, Parser)]
#[command(version, after_help = AFTER_HELP, max_term_width = 100)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Merge two parents into one child
    #[command(
        override_usage = "llm-slerp-merge merge [OPTIONS] <PRIMARY> <SECONDARY> -o <OUT>\n       llm-slerp-merge merge [OPTIONS] --recipe <FILE> -o <OUT>"
    )]
    Merge(Box<MergeArgs>),
    /// Show what merge would do; writes nothing
    Plan(Box<MergeArgs>),
    /// Write a model anew without merging: as .bin or safetensors, in another dtype, in other shards
    #[command(override_usage = "llm-slerp-merge convert [OPTIONS] <MODEL> -o <OUT>")]
    Convert(ConvertArgs),
    /// List tensors, dtypes, shapes and sizes; loads no data
    Inspect(InspectArgs),
    /// Read every byte: is the checkpoint whole and finite
    Verify(VerifyArgs),
    /// List the models below directories, and which of them fit each other
    Find(FindArgs),
    /// Show the devices that a merge can be computed on, and why CUDA is not available if it isn't
    Devices,
    /// Make the merges of a manifest, or of recipes
    Batch(BatchArgs),
    /// Show what a recipe for mergekit is understood to say
    Recipe(RecipeArgs),
    /// One sweep of a batch, as its own process; not for people
    #[command(hide = true)]
    Sweep,
    /// Print the completion script of a shell
    Completions(CompletionsArgs),
    /// Print a man page
    Man(ManArgs),
}

/// What is printed, of every command.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct OutputArgs {
    /// Machine-readable result on stdout; logs and progress stay on stderr
    #[arg(long, global = true, help_heading = "Options of every command")]
    pub(crate) json: bool,
    /// More log lines (twice: still more); RUST_LOG works too
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    #[arg(help_heading = "Options of every command")]
    pub(crate) verbose: u8,
    /// Only errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    #[arg(help_heading = "Options of every command")]
    pub(crate) quiet: bool,
    /// No progress bar
    #[arg(long, global = true, help_heading = "Options of every command")]
    pub(crate) no_progress: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct MergeArgs {
    /// Model directory, checkpoint file (FILE::KEY for one of several state dicts in it), or ORG/NAME
    /// in the local Hub cache: the parent at t = 0
    #[arg(required_unless_present = "recipe")]
    pub(crate) primary: Option<PathBuf>,
    /// The same: the parent at t = 1
    #[arg(required_unless_present = "recipe")]
    pub(crate) secondary: Option<PathBuf>,
    /// A recipe for mergekit (YAML) in place of both parents, --t, --t-for and --method; paths in it
    /// are relative to the working directory
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    #[arg(conflicts_with_all = ["primary", "secondary", "t", "t_for", "method"])]
    pub(crate) recipe: Option<PathBuf>,
    /// Directory to be made for the child; holds {t} where there are several values of t, and may hold
    /// {name}, the name of the recipe's file
    #[arg(short, long, value_name = "OUT", value_hint = ValueHint::DirPath)]
    pub(crate) output: Option<PathBuf>,
    /// Place between the parents: 0 is the primary, 1 the secondary. Several values, separated by
    /// commas, write several children in one pass
    #[arg(short, long, value_delimiter = ',', default_value = "0.5", value_parser = parse_t)]
    #[arg(allow_negative_numbers = true)]
    pub(crate) t: Vec<f64>,
    /// t of the tensors whose names hold FILTER (* fits all), in place of --t; several values are
    /// spread over the layers. May be repeated: the first that fits wins
    #[arg(long, value_name = "FILTER=T[,T...]", value_parser = Filter::parse)]
    pub(crate) t_for: Vec<Filter>,
    /// How two tensors become one
    #[arg(long, value_enum, default_value_t = Method::Slerp)]
    pub(crate) method: Method,
    /// Where to compute: auto, cpu, cuda, or cuda:N[,M...] for several GPUs. auto takes the first GPU
    /// where CUDA is available, else the CPU
    #[arg(long, default_value = "auto", value_parser = DeviceChoice::parse)]
    pub(crate) device: DeviceChoice,
    /// Memory that a merge may use of each GPU, e.g. 8GB, 16MiB or more [default: half of what is free]
    #[arg(long, value_name = "SIZE", value_parser = parse_device_memory)]
    pub(crate) device_memory: Option<u64>,
    /// Worker threads [default: number of cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: Option<u16>,
    /// Memory for tensors that are kept between the two passes, e.g. 128MB or 1GiB; the child does
    /// not depend on it
    #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = parse_size)]
    pub(crate) memory: u64,
    /// dtype of the child's floating tensors; keep takes each tensor's dtype in the primary
    #[arg(long, default_value = "keep", value_parser = dtype_parser())]
    pub(crate) dtype: ChildDType,
    /// Format of the child's weight files; auto is the primary's
    #[arg(long, default_value = "auto", value_parser = format_parser())]
    pub(crate) format: ChildFormat,
    /// Largest shard, by HuggingFace's rule: KB, MB, GB, TB (powers of ten), KiB, MiB, GiB, or bytes
    #[arg(long, value_name = "SIZE", default_value = "5GB", value_parser = parse_size)]
    #[arg(allow_hyphen_values = true)]
    pub(crate) max_shard_size: u64,
    /// How the shorter vocabulary is extended
    #[arg(long, value_enum, default_value_t = Extend::Gradient)]
    pub(crate) extend: Extend,
    /// What becomes of vocabularies that give one row to different words
    #[arg(long, value_enum, default_value_t = VocabMode::Check)]
    pub(crate) vocab: VocabMode,
    /// What becomes of a tensor that one parent lacks [default: primary, but refused where more than a
    /// tenth of the model has no partner]
    #[arg(long, value_enum)]
    pub(crate) missing: Option<Missing>,
    /// Whose tokenizer files the child gets; auto takes the longer vocabulary's
    #[arg(long, value_enum, default_value_t = TokenizerMode::Auto)]
    pub(crate) tokenizer: TokenizerMode,
    /// Copy the primary's custom *.py code into the child
    #[arg(long)]
    pub(crate) copy_code: bool,
    /// Replace an existing child, once the new one is complete
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// Go on with an interrupted merge; what it left is checked, and the rest is done
    #[arg(long)]
    pub(crate) resume: bool,
    /// Leave flushing to the system (benchmarks, scratch disks)
    #[arg(long)]
    pub(crate) no_fsync: bool,
    /// Merge though a parent holds NaN or Inf, or the child overflows its dtype
    #[arg(long)]
    pub(crate) allow_nonfinite: bool,
    /// Merge though the configs say that equal shapes mean different things, or only the secondary's
    /// output head is a tensor of its own, which is then left out
    #[arg(long)]
    pub(crate) force_config: bool,
    #[command(flatten)]
    pub(crate) strict: StrictArgs,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ConvertArgs {
    /// Model directory, checkpoint file (FILE::KEY for one of several state dicts in it), or ORG/NAME
    /// in the local Hub cache
    pub(crate) model: PathBuf,
    /// Directory to be made
    #[arg(short, long, value_name = "OUT", value_hint = ValueHint::DirPath)]
    pub(crate) output: PathBuf,
    /// Format of the new weight files; auto is the model's own
    #[arg(long, default_value = "auto", value_parser = format_parser())]
    pub(crate) format: ChildFormat,
    /// dtype of floating tensors; keep takes each tensor's own
    #[arg(long, default_value = "keep", value_parser = dtype_parser())]
    pub(crate) dtype: ChildDType,
    /// Largest shard, by HuggingFace's rule: KB, MB, GB, TB (powers of ten), KiB, MiB, GiB, or bytes
    #[arg(long, value_name = "SIZE", default_value = "5GB", value_parser = parse_size)]
    #[arg(allow_hyphen_values = true)]
    pub(crate) max_shard_size: u64,
    /// Worker threads [default: number of cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: Option<u16>,
    /// Copy the model's custom *.py code
    #[arg(long)]
    pub(crate) copy_code: bool,
    /// Replace an existing output, once the new one is complete
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// Go on with an interrupted conversion; what it left is checked, and the rest is done
    #[arg(long)]
    pub(crate) resume: bool,
    /// Leave flushing to the system (benchmarks, scratch disks)
    #[arg(long)]
    pub(crate) no_fsync: bool,
    /// Take NaN, Inf and overflows where --dtype changes the dtype; what keeps its dtype may hold them
    #[arg(long)]
    pub(crate) allow_nonfinite: bool,
    #[command(flatten)]
    pub(crate) strict: StrictArgs,
}

impl From<&ConvertArgs> for MergeOptions {
    fn from(args: &ConvertArgs) -> MergeOptions {
        MergeOptions {
            children: vec![Child::at(0.0)],
            dtype: args.dtype,
            format: args.format,
            max_shard_bytes: args.max_shard_size,
            allow_nonfinite: args.allow_nonfinite,
            copy_code: args.copy_code,
            ..MergeOptions::default()
        }
    }
}

/// Checks of a parent beyond those that are always made.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct StrictArgs {
    /// Refuse weight files with bytes that no CRC-32 covers: those of torch before 1.6, and of
    /// savers that leave it out
    #[arg(long)]
    pub(crate) require_checksums: bool,
    /// Refuse links that lead out of the model's directory, as in the Hub's cache
    #[arg(long)]
    pub(crate) no_follow: bool,
    #[command(flatten)]
    pub(crate) opaque: OpaqueArgs,
}

impl From<&StrictArgs> for Opening {
    fn from(args: &StrictArgs) -> Opening {
        let strictness =
            Strictness { no_follow: args.no_follow, require_checksums: args.require_checksums };
        Opening { strictness, ..Opening::from(&args.opaque) }
    }
}

/// What may stand beside a model's weights.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct OpaqueArgs {
    /// A class of another program, by its full name, that may stand beside the weights: its values
    /// are left out, and never run. May be repeated
    #[arg(long, value_name = "MODULE.NAME", value_delimiter = ',')]
    #[arg(value_parser = OpaqueName::parse)]
    pub(crate) opaque: Vec<OpaqueName>,
}

impl From<&OpaqueArgs> for Opening {
    fn from(args: &OpaqueArgs) -> Opening {
        let opaque = OpaqueNames::new(args.opaque.iter().cloned());
        Opening { strictness: Strictness::default(), opaque }
    }
}

#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// Model directories, checkpoint files (FILE::KEY for one of several state dicts), or ORG/NAME in
    /// the local Hub cache
    #[arg(required = true, value_name = "MODEL")]
    pub(crate) models: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) opaque: OpaqueArgs,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// Model directories, checkpoint files (FILE::KEY for one of several state dicts), or ORG/NAME in
    /// the local Hub cache
    #[arg(required = true, value_name = "MODEL")]
    pub(crate) models: Vec<PathBuf>,
    /// Worker threads [default: number of cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: Option<u16>,
    #[command(flatten)]
    pub(crate) strict: StrictArgs,
}

#[derive(Debug, Args)]
pub(crate) struct FindArgs {
    /// Directories to look into
    #[arg(value_name = "DIR", default_value = ".", value_hint = ValueHint::DirPath)]
    pub(crate) dirs: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) opaque: OpaqueArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RecipeArgs {
    #[command(subcommand)]
    pub(crate) command: RecipeCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RecipeCommand {
    /// Show it as flags of merge, or with --json as a manifest
    Show {
        /// The recipe (YAML)
        #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
        recipe: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(crate) struct BatchArgs {
    /// JSON file that names the merges, paths in it relative to it; or recipes for mergekit (YAML), as
    /// many as you like, with -o
    #[arg(required_unless_present = "schema", value_name = "MANIFEST", value_hint = ValueHint::FilePath)]
    pub(crate) manifests: Vec<PathBuf>,
    /// Directories to be made for the children of recipes; {name} is the name of a recipe's file
    #[arg(short, long, value_name = "OUT", value_hint = ValueHint::DirPath)]
    pub(crate) output: Option<String>,
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

#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// Shell to complete in
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// Command to print the page of; without it the tool's own
    pub(crate) command: Option<String>,
}
