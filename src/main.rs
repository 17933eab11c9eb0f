//! The `llm-slerp-merge` program: runs `llm_slerp_merge::cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    llm_slerp_merge::cli::leave(llm_slerp_merge::cli::run(std::env::args_os()))
}
