//! The command line: options for all commands, and the commands.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::args::admin::AdminCommand;
use crate::args::client::ClientArgs;
use crate::args::config::ConfigCommand;
use crate::args::database::{DevShellArgs, MigrationCommand, SetupDbArgs};
use crate::args::servers::{QuickstartArgs, RunArgs, ServeArgs, ServeLegacyArgs};
use crate::args::values::existing_path;
use crate::args::worker::WorkerArgs;
use crate::logging::{LogLevel, level_parser};

const EXAMPLES: &str = "\
Examples:
  duffy quickstart                         Try it out: nothing to configure
  duffy -c duffy.yaml config check         Check a configuration
  duffy -c /etc/duffy run                  Run everything in one process
  duffy client list-sessions               Call a running Duffy

Exit codes: 0 done, 1 refused or failed, 2 wrong usage.";

/// Lend pools of provisioned machines to CI jobs as time-limited sessions
#[derive(Debug, Parser)]
#[command(
    name = "duffy",
    version,
    after_help = EXAMPLES,
    args_override_self = true,
    max_term_width = 100
)]
pub struct Cli {
    /// How much to log: trace, debug, info, warning, error or critical [default: the
    /// configuration's, else info for servers and warning for the other commands]
    #[arg(
        short,
        long,
        value_parser = level_parser(),
        ignore_case = true,
        value_name = "LEVEL",
        hide_possible_values = true
    )]
    pub loglevel: Option<LogLevel>,

    /// Read this YAML file, or this directory's *.yaml and *.yml, instead of /etc/duffy and
    /// $XDG_CONFIG_HOME/duffy; several are merged in order
    #[arg(short, long = "config", value_name = "FILE_OR_DIR", value_parser = existing_path())]
    pub config: Vec<PathBuf>,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Try Duffy out: simulated nodes, no configuration, nothing installed
    Quickstart(QuickstartArgs),
    /// Run the web API, the worker and, if configured, the old API in one process
    Run(RunArgs),
    /// Run the web API
    Serve(ServeArgs),
    /// Run the old API, for clients that do not use the new one
    ServeLegacy(ServeLegacyArgs),
    /// Run a worker, which provisions nodes and cleans up after sessions
    Worker(Box<WorkerArgs>),
    /// Call a Duffy API: pools, sessions
    Client(ClientArgs),
    /// Manage tenants, nodes and pools in the database
    #[command(subcommand)]
    Admin(AdminCommand),
    /// Check and show the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Create the tables in an empty database
    SetupDb(SetupDbArgs),
    /// Upgrade or downgrade the database's tables
    #[command(subcommand)]
    Migration(MigrationCommand),
    /// Open the database's own shell
    DevShell(DevShellArgs),
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn definitions_are_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_shows_an_example() {
        fn check(command: &clap::Command) {
            let name = command.get_name();
            let after = command
                .get_after_help()
                .map(ToString::to_string)
                .unwrap_or_default();
            let mut lines = after.lines().map(str::trim_start);
            assert!(
                lines.any(|line| line.starts_with("duffy") && line.contains(name)),
                "{name} has no example"
            );
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }
}
