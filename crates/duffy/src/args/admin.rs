//! The arguments of `duffy admin`.

pub mod operators;
pub mod tenants;

use clap::Subcommand;

use operators::{CheckArgs, HistoryCommand, NodeCommand, PoolCommand};
use tenants::{OldDumpArgs, TenantCommand};

/// What to manage.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  duffy admin list-tenants
  duffy admin create-tenant ci \"$(cat id_ed25519.pub)\"
  duffy admin list-nodes --state failed
  duffy admin drain-pool virtual-centos9 --reason \"new image\"

Works on the configured database; no server needs to run.")]
pub enum AdminCommand {
    /// Tenants.
    #[command(flatten)]
    Tenants(TenantCommand),
    /// Print the old API's usermap from CSV dumps of the old Duffy, as YAML
    #[command(after_help = "\
Example:
  duffy admin generate-usermap users.csv userkeys.csv > /etc/duffy/usermap.yaml

It contains API keys in plain text: protect it from other users.")]
    GenerateUsermap(OldDumpArgs),
    /// Nodes.
    #[command(flatten)]
    Nodes(NodeCommand),
    /// Pools.
    #[command(flatten)]
    Pools(PoolCommand),
    /// Events.
    #[command(flatten)]
    History(HistoryCommand),
    /// Check that nodes, sessions, keys and pools are as promised; changes nothing
    #[command(after_help = "\
Examples:
  duffy admin check
  duffy admin check --at-rest              With no work in progress: full pools, nothing left over
  duffy admin check --no-ssh --json        The tables only, for scripts

Exits with 1 if a promise is broken. docs/reliability.md lists the promises by number.")]
    Check(CheckArgs),
}
