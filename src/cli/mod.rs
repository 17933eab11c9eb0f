//! Floor 7: arguments, bars, exit codes.

mod args;
mod devices;
mod find;
mod inspect;
mod interrupt;
mod merge;
mod print;
mod progress;
mod verify;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;
use log::LevelFilter;

use crate::cli::args::{Cli, Command, OutputArgs};
use crate::error::Result;

/// Runs the tool with these arguments, program name first.
pub fn run(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Usage goes where clap sends it: help to stdout, errors to stderr.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    start_log(&cli.output);
    let result = match &cli.command {
        Command::Merge(args) => merge::merge(args, &cli.output),
        Command::Plan(args) => merge::plan(args, &cli.output),
        Command::Inspect(args) => inspect::inspect(args, &cli.output),
        Command::Find(args) => find::find(args, &cli.output),
        Command::Devices => devices::devices(&cli.output),
        Command::Verify(args) => match verify::verify(args, &cli.output) {
            // What is wrong has been said.
            Ok(Some(kind)) => return ExitCode::from(kind.exit_code()),
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        },
    };
    finish(result, &cli.output)
}

fn finish(result: Result<()>, output: &OutputArgs) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            print::error(&error, output.json);
            interrupt::reraise(error.kind());
            ExitCode::from(error.kind().exit_code())
        }
    }
}

fn start_log(output: &OutputArgs) {
    let level = match (output.quiet, output.verbose) {
        (true, _) => LevelFilter::Error,
        (false, 0) => LevelFilter::Warn,
        (false, 1) => LevelFilter::Info,
        (false, 2) => LevelFilter::Debug,
        (false, _) => LevelFilter::Trace,
    };
    env_logger::Builder::new()
        .filter_level(level)
        .parse_default_env()
        .format_timestamp_secs()
        .format_target(false)
        .init();
}
