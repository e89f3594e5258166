//! What can be written on the command line: the top, and which commands there are.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::commands::admin::AdminCommand;
use crate::commands::client::ClientArgs;
use crate::commands::config::ConfigCommand;
use crate::commands::migration::MigrationCommand;
use crate::commands::quickstart::QuickstartArgs;
use crate::commands::run::RunArgs;
use crate::commands::serve::ServeArgs;
use crate::commands::serve_legacy::ServeLegacyArgs;
use crate::commands::setup_db::SetupDbArgs;
use crate::commands::worker::WorkerArgs;
use crate::dev_shell::DevShellArgs;
use crate::logging::LogLevel;
use crate::values::existing_path;

const EXAMPLES: &str = "\
Examples:
  duffy quickstart                         Try it out: nothing to configure
  duffy -c duffy.yaml config check         Check a configuration
  duffy -c /etc/duffy run                  Run everything in one process
  duffy client list-sessions               Ask a running Duffy

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
        value_enum,
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
    /// Run the web API, the worker and, where it is configured, the old API in one process
    Run(RunArgs),
    /// Run the web API
    Serve(ServeArgs),
    /// Run the old API, for clients that know no other
    ServeLegacy(ServeLegacyArgs),
    /// Run a worker, which provisions nodes and cleans up after sessions
    Worker(Box<WorkerArgs>),
    /// Ask a Duffy API: pools, sessions
    Client(ClientArgs),
    /// Manage tenants, nodes and pools in the database
    #[command(subcommand, after_help = AdminCommand::EXAMPLES)]
    Admin(AdminCommand),
    /// Check and show the configuration
    #[command(subcommand, after_help = ConfigCommand::EXAMPLES)]
    Config(ConfigCommand),
    /// Make the tables in an empty database
    SetupDb(SetupDbArgs),
    /// Bring the database's tables to another version
    #[command(subcommand, after_help = MigrationCommand::EXAMPLES)]
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
