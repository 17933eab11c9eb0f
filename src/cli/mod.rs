//! Floor 7: parses the command line, runs the command, and turns its result into an exit code.

mod args;
mod batch;
mod by_layer;
mod convert;
mod devices;
mod find;
mod generate;
mod inspect;
mod interrupt;
mod merge;
mod print;
mod progress;
mod prompts;
mod recipe;
mod usage;
mod verify;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use log::LevelFilter;

use crate::cli::args::{Cli, Command, OutputArgs};
use crate::error::{Error, Kind, Result};

/// Runs the tool with these arguments, program name first.
pub fn run(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.collect();
    if let [program] = arguments.as_slice()
        && prompts::can_ask()
    {
        let output = OutputArgs::default();
        start_log(&output);
        interrupt::survive_large_files();
        return guarded(&output, || finish(prompts::merge(program), false));
    }
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) => {
            let error = usage::explained(error, &arguments);
            // Usage goes where clap sends it: help to stdout, errors to stderr.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    start_log(&cli.output);
    interrupt::survive_large_files();
    guarded(&cli.output, || execute(&cli))
}

/// Ends the process at once on success: libtorch's teardown takes 50 ms and is of no use.
pub fn leave(code: ExitCode) -> ExitCode {
    let flushed = std::io::stdout().flush().is_ok();
    if code == ExitCode::SUCCESS && flushed {
        signal_hook::low_level::exit(0);
    }
    code
}

/// Runs `work`; a panic in it becomes an error of [`Kind::Internal`].
fn guarded(output: &OutputArgs, work: impl FnOnce() -> ExitCode) -> ExitCode {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).unwrap_or_else(|_| {
        // The panic hook has printed the place.
        let broken = Error::new(Kind::Internal, "the program broke down")
            .with_hint("please report this with the lines above and the log of RUST_LOG=debug");
        finish(Err(broken), output.json)
    })
}

fn execute(cli: &Cli) -> ExitCode {
    let result = match &cli.command {
        Command::Merge(args) => merge::merge(args, &cli.output),
        Command::Plan(args) => merge::plan(args, &cli.output),
        Command::Convert(args) => convert::convert(args, &cli.output),
        Command::Inspect(args) => inspect::inspect(args, &cli.output),
        Command::Find(args) => find::find(args, &cli.output),
        Command::Devices => devices::devices(&cli.output),
        Command::Completions(args) => generate::completions(args),
        Command::Man(args) => generate::man(args),
        Command::Verify(args) => match verify::verify(args, &cli.output) {
            // The findings are printed already.
            Ok(Some(kind)) => return ExitCode::from(kind.exit_code()),
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        },
        Command::Recipe(args) => recipe::show::recipe(args, &cli.output),
        Command::Batch(args) => match batch::batch(args, &cli.output) {
            Ok(code) => return code,
            Err(error) => Err(error),
        },
        Command::Sweep => return batch::sweep(),
    };
    finish(result, cli.output.json)
}

fn finish(result: Result<()>, as_json: bool) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            print::error(&error, as_json);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_with_a_code_of_its_own() {
        let output = Cli::try_parse_from(["llm-slerp-merge", "inspect", "x"]).unwrap().output;
        assert_eq!(guarded(&output, || panic!("tried")), ExitCode::from(70));
        assert_eq!(guarded(&output, || ExitCode::from(3)), ExitCode::from(3));
    }
}
