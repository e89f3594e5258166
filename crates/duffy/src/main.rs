//! The `duffy` command: arguments, printing, exit codes.

mod cli;
mod commands;
mod config;
mod dev_shell;
mod failure;
#[cfg(feature = "client")]
mod format;
#[cfg(feature = "legacy")]
mod legacy;
mod logging;
#[cfg(any(feature = "server", feature = "legacy"))]
mod open_files;
mod output;
mod permissions;
#[cfg(feature = "server")]
mod quickstart;
#[cfg(feature = "server")]
mod server;
#[cfg(any(feature = "server", feature = "legacy"))]
mod signals;
mod values;

use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

fn main() -> ExitCode {
    match cli::Cli::try_parse() {
        Ok(cli) => commands::main(cli),
        // Scripts of sites may read this line, so it has the original's form.
        Err(error) if error.kind() == ErrorKind::DisplayVersion => output::finish(output::data(
            &format!("Duffy, version {}", env!("CARGO_PKG_VERSION")),
        )),
        Err(error) => output::usage(&error),
    }
}
