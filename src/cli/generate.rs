//! `completions` and `man`: what clap makes of the command line for shells and for `man`.

use clap::CommandFactory;
use clap_complete::Shell;

use crate::cli::args::{Cli, CompletionsArgs, ManArgs};
use crate::cli::print;
use crate::error::{Error, Kind, Result};

/// Prints the completion script of a shell.
pub(crate) fn completions(args: &CompletionsArgs) -> Result<()> {
    let mut script = Vec::new();
    let mut command = Cli::command();
    let name = command.get_name().to_owned();
    clap_complete::generate(args.shell, &mut command, name, &mut script);
    let mut script = String::from_utf8_lossy(&script).into_owned();
    if args.shell == Shell::Bash {
        // clap 4.6 writes a name with hyphens in two ways, and nothing matches (clap issue 6421).
        let name = command.get_name();
        script = script.replace(&name.replace('-', "__subcmd__"), &name.replace('-', "__"));
    }
    print::result(script.trim_end())
}

/// Prints a man page in roff: the tool's, or that of one command.
pub(crate) fn man(args: &ManArgs) -> Result<()> {
    let mut command = Cli::command();
    // What is global reaches the commands, and they get their full names.
    command.build();
    if let Some(name) = &args.command {
        let known: Vec<&str> = command.get_subcommands().map(|sub| sub.get_name()).collect();
        let known = known.join(", ");
        command = command.find_subcommand(name).cloned().ok_or_else(|| {
            Error::new(Kind::Usage, "no such command")
                .expected(format!("one of {known}"), format!("`{name}`"))
        })?;
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page).map_err(|error| {
        Error::new(Kind::Internal, "cannot make the man page").expected("", error.to_string())
    })?;
    print::result(String::from_utf8_lossy(&page).trim_end())
}
