//! `duffy admin`: manages tenants, nodes, pools and the history in the database.

#[cfg(feature = "server")]
mod check;
#[cfg(feature = "server")]
mod history;
#[cfg(feature = "server")]
mod nodes;
mod operator_args;
#[cfg(feature = "server")]
mod pools;
#[cfg(feature = "server")]
mod print;
mod tenant_args;
#[cfg(feature = "server")]
mod tenants;

use std::process::ExitCode;

use clap::Subcommand;

pub use operator_args::{CheckArgs, HistoryCommand, NodeCommand, PoolCommand};
pub use tenant_args::TenantCommand;

use crate::config::Loaded;

/// What to manage.
#[derive(Debug, Subcommand)]
pub enum AdminCommand {
    /// Tenants.
    #[command(flatten)]
    Tenants(TenantCommand),
    /// Nodes.
    #[command(flatten)]
    Nodes(NodeCommand),
    /// Pools.
    #[command(flatten)]
    Pools(PoolCommand),
    /// What happened.
    #[command(flatten)]
    History(HistoryCommand),
    /// Look whether nodes, sessions, keys and pools are as they should be; changes nothing
    #[command(after_help = "\
Examples:
  duffy admin check
  duffy admin check --at-rest              When nothing is under way: full pools, nothing left over
  duffy admin check --no-ssh --json        The tables only, for scripts

Exits with 1 when something is not as promised. docs/reliability.md has the promises by number.")]
    Check(CheckArgs),
}

impl AdminCommand {
    pub const EXAMPLES: &str = "\
Examples:
  duffy admin list-tenants
  duffy admin create-tenant ci \"$(cat id_ed25519.pub)\"
  duffy admin list-nodes --state failed
  duffy admin drain-pool virtual-centos9 --reason \"new image\"

Works on the configured database; no server needs to run.";
}

/// Never reached: the feature is missing.
#[cfg(not(feature = "server"))]
pub fn main(_: AdminCommand, _: &Loaded) -> ExitCode {
    ExitCode::FAILURE
}

/// Runs one of them.
#[cfg(feature = "server")]
pub fn main(command: AdminCommand, loaded: &Loaded) -> ExitCode {
    crate::logging::init(loaded.command_level());
    match command {
        AdminCommand::Tenants(command) => tenants::main(command, loaded),
        AdminCommand::Nodes(command) => crate::output::finish(nodes::run(&command, loaded)),
        AdminCommand::Pools(command) => crate::output::finish(pools::run(&command, loaded)),
        AdminCommand::Check(args) => check::main(&args, loaded),
        AdminCommand::History(command) => crate::output::finish(history::run(&command, loaded)),
    }
}
