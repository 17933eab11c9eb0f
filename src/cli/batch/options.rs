//! Derives the options that a manifest may set from clap's definition of `merge`, so that there is
//! no second list to keep up.

use std::any::TypeId;
use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::ValueParser;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, Args, FromArgMatches};

use crate::batch::{JobOptions, OptionKind, OptionSpec};
use crate::cli::args::MergeArgs;
use crate::cli::recipe::asked::asked;
use crate::error::{Error, Kind, Result};
use crate::merge::Filter;

fn merge_command() -> clap::Command {
    MergeArgs::augment_args(clap::Command::new("merge").no_binary_name(true))
}

/// Every option of merge but the output, which is a key of its own.
pub(crate) fn specs() -> Vec<OptionSpec> {
    let command = merge_command();
    let options = command.get_arguments().filter(|arg| !arg.is_positional());
    options.filter(|arg| arg.get_id() != "output").filter_map(spec).collect()
}

fn spec(arg: &Arg) -> Option<OptionSpec> {
    let defaults = arg.get_default_values().iter().map(|value| value.to_string_lossy());
    let default = defaults.collect::<Vec<_>>().join(",");
    let is_flag = matches!(arg.get_action(), ArgAction::SetTrue);
    Some(OptionSpec {
        name: arg.get_long()?.to_owned(),
        help: arg.get_help().map(ToString::to_string).unwrap_or_default(),
        kind: kind(arg, is_flag),
        many: arg.get_value_delimiter().is_some(),
        default: (!is_flag && !default.is_empty()).then_some(default),
    })
}

fn kind(arg: &Arg, is_flag: bool) -> OptionKind {
    let parser: &ValueParser = arg.get_value_parser();
    let is = |id: TypeId| parser.type_id() == id;
    let words: Vec<String> =
        arg.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
    match () {
        () if is_flag => OptionKind::Flag,
        () if !words.is_empty() => OptionKind::Words(words),
        () if is(TypeId::of::<f64>()) => OptionKind::Number,
        () if is(TypeId::of::<u16>()) => OptionKind::Whole,
        () if is(TypeId::of::<PathBuf>()) => OptionKind::Path,
        () if is(TypeId::of::<Filter>()) => OptionKind::Filters,
        () => OptionKind::Text,
    }
}

/// Parses a merge's arguments as `merge` does.
///
/// # Errors
/// [`Kind::Usage`] with clap's words, [`Kind::Device`] where the device is not there.
pub(crate) fn parse(arguments: &[OsString]) -> Result<JobOptions> {
    let matches = merge_command().try_get_matches_from(arguments).map_err(usage)?;
    let args = MergeArgs::from_arg_matches(&matches).map_err(usage)?;
    args.device.check()?;
    Ok(JobOptions {
        merge: asked(&args)?.options,
        opening: (&args.strict).into(),
        overwrite: args.overwrite,
        fsync: !args.no_fsync,
        device: args.device,
        device_bytes: args.device_memory,
        threads: args.threads.map(usize::from),
        memory_bytes: args.memory,
        memory_is_named: matches.value_source("memory") == Some(ValueSource::CommandLine),
    })
}

/// Clap's message without its headline and its pointer to `--help`.
#[expect(clippy::needless_pass_by_value, reason = "as map_err hands it over")]
fn usage(error: clap::Error) -> Error {
    let text = error.to_string();
    let lines = text.lines().map(str::trim).take_while(|line| !line.is_empty());
    let words = lines.collect::<Vec<_>>().join(" ");
    Error::new(Kind::Usage, words.strip_prefix("error: ").unwrap_or(&words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_may_set_every_option_of_merge_but_the_output() {
        let specs = specs();
        let names: Vec<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
        for name in ["t", "method", "device", "max-shard-size", "overwrite", "no-fsync"] {
            assert!(names.contains(&name), "{name}");
        }
        assert!(!names.contains(&"output") && !names.contains(&"help"), "{names:?}");
        let kind = |name: &str| &specs.iter().find(|spec| spec.name == name).unwrap().kind;
        assert_eq!(*kind("t"), OptionKind::Number);
        assert_eq!(*kind("t-for"), OptionKind::Filters);
        assert_eq!(*kind("threads"), OptionKind::Whole);
        assert_eq!(*kind("memory"), OptionKind::Text);
        assert_eq!(*kind("overwrite"), OptionKind::Flag);
        assert!(matches!(kind("extend"), OptionKind::Words(words) if words.len() == 6));
    }

    #[test]
    fn values_that_merge_refuses_are_refused_in_one_line() {
        let error = parse(&["--t=1.5".into(), "a".into(), "b".into()]).unwrap_err();
        assert_eq!(error.kind(), Kind::Usage);
        let text = error.to_string();
        assert!(
            text.contains("1.5") && !text.contains('\n') && !text.starts_with("error"),
            "{text}"
        );
    }
}
