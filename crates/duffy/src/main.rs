//! The `duffy` command: arguments, printing, exit codes.

mod args;
mod cli;
mod commands;
mod failure;
mod logging;
mod output;
mod permissions;
#[cfg(any(feature = "server", feature = "legacy"))]
mod runtime;

use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

fn main() -> ExitCode {
    match cli::Cli::try_parse() {
        Ok(cli) => output::finish(commands::run(cli)),
        // Scripts may read this line, so it has the original's form.
        Err(error) if error.kind() == ErrorKind::DisplayVersion => output::finish(output::data(
            &format!("Duffy, version {}", env!("CARGO_PKG_VERSION")),
        )),
        Err(error) => output::usage(&error),
    }
}
