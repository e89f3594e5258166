//! The commands: one file each, with its arguments and what it does.

pub mod admin;
pub mod client;
pub mod config;
pub mod migration;
#[cfg(feature = "server")]
mod old_dump;
pub mod quickstart;
pub mod run;
pub mod serve;
pub mod serve_legacy;
#[cfg(feature = "server")]
mod server_calls;
pub mod setup_db;
pub mod worker;

use std::process::ExitCode;

use crate::cli::{Cli, Command};
use crate::config::Loaded;
use crate::dev_shell;
use crate::failure::Failure;
use crate::output;

/// Runs a command to its exit code.
pub fn main(cli: Cli) -> ExitCode {
    if let Some(feature) = missing_feature(&cli.command) {
        return output::finish(Err(Failure(format!(
            "this build of duffy lacks the feature `{feature}`, which the command needs: \
             install the full `duffy` package, or build with `--features {feature}`"
        ))));
    }
    // Makes its own configuration.
    if let Command::Quickstart(args) = cli.command {
        return quickstart::main(&args, cli.loglevel);
    }
    let loaded = match Loaded::load(&cli.config, cli.loglevel) {
        Ok(loaded) => loaded,
        Err(failure) => return output::finish(Err(failure)),
    };
    match cli.command {
        Command::Quickstart(args) => quickstart::main(&args, cli.loglevel),
        Command::Run(args) => run::main(&args, &loaded),
        Command::Serve(args) => serve::main(&args, &loaded),
        Command::ServeLegacy(args) => serve_legacy::main(&args, &loaded),
        Command::Worker(args) => worker::main(&args, &loaded),
        Command::Client(args) => client::main(args, &loaded),
        Command::Admin(command) => admin::main(command, &loaded),
        Command::Config(command) => config::main(&command, &loaded),
        Command::SetupDb(args) => setup_db::main(&args, &loaded),
        Command::Migration(command) => migration::main(&command, &loaded),
        Command::DevShell(args) => dev_shell::main(&args, &loaded),
    }
}

/// The cargo feature that a command needs and this build lacks. The names are those of the
/// original's extras.
fn missing_feature(command: &Command) -> Option<&'static str> {
    let needed: &[(&str, bool)] = match command {
        Command::Quickstart(_) => &[
            ("app", cfg!(feature = "app")),
            ("tasks", cfg!(feature = "tasks")),
            ("sqlite", cfg!(feature = "sqlite")),
        ],
        Command::Run(_) => &[
            ("app", cfg!(feature = "app")),
            ("tasks", cfg!(feature = "tasks")),
        ],
        Command::Serve(_) => &[("app", cfg!(feature = "app"))],
        Command::ServeLegacy(_) => &[("legacy", cfg!(feature = "legacy"))],
        Command::Worker(_) => &[("tasks", cfg!(feature = "tasks"))],
        Command::Client(_) => &[("client", cfg!(feature = "client"))],
        Command::Admin(_) => &[("admin", cfg!(feature = "admin"))],
        Command::SetupDb(_) | Command::Migration(_) => &[("postgresql", cfg!(feature = "server"))],
        Command::Config(_) | Command::DevShell(_) => &[],
    };
    needed
        .iter()
        .find(|(_, there)| !there)
        .map(|(name, _)| *name)
}
