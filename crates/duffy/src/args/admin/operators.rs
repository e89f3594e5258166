//! The arguments of `duffy admin` about nodes, pools and the history.

use std::time::Duration;

use clap::{Args, Subcommand};
use duffy_api::NodeState;

use crate::args::values::{parse_age, parse_reason, parse_state};

/// What to do with nodes.
#[derive(Debug, Subcommand)]
pub enum NodeCommand {
    /// List nodes
    #[command(after_help = "\
Examples:
  duffy admin list-nodes --pool virtual-centos9
  duffy admin list-nodes --state failed --json   For scripts
  duffy admin list-nodes --all                   Include retired nodes")]
    ListNodes(ListNodesArgs),
    /// Show a node, its last error and its latest events
    #[command(after_help = "\
Example:
  duffy admin show-node 17")]
    ShowNode(ShowArgs),
    /// Retire a node permanently
    #[command(after_help = "\
Example:
  duffy admin retire-node 17 --reason \"broken fan\"

A worker deprovisions it, and it is not used again. A lent node stays with its tenant until the \
session ends.")]
    RetireNode(ChangeNodeArgs),
    /// Deprovision a failed node, or retry a waiting one now
    #[command(after_help = "\
Example:
  duffy admin repair-node 17 --reason \"power is back\"")]
    RepairNode(ChangeNodeArgs),
    /// Hold a node as it is, or release it
    #[command(after_help = "\
Examples:
  duffy admin hold-node 17 --reason \"looking at the disk\"
  duffy admin hold-node 17 --release --reason \"seen enough\"

A held node is not lent, picked, worked on or repaired. A lent node stays with its tenant until \
the session ends, and is held after that.")]
    HoldNode(HoldNodeArgs),
}

/// Which nodes to list, and how to print them.
#[derive(Debug, Args)]
pub struct ListNodesArgs {
    /// Only nodes of this pool
    #[arg(long, value_name = "NAME")]
    pub pool: Option<String>,

    /// Only nodes in this state: unused, provisioning, ready, contextualizing, deployed,
    /// deprovisioning, failed or done
    #[arg(long, value_parser = parse_state)]
    pub state: Option<NodeState>,

    /// Include retired nodes
    #[arg(long)]
    pub all: bool,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Which node to show, and how to print it.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// Number of the node
    pub id: i64,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// The reason for a change, and how to print the result.
#[derive(Debug, Args)]
pub struct WhyArgs {
    /// Reason, recorded in the history
    #[arg(long, value_name = "TEXT", value_parser = parse_reason)]
    pub reason: String,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Which node to change, and the reason.
#[derive(Debug, Args)]
pub struct ChangeNodeArgs {
    /// Number of the node
    pub id: i64,

    #[command(flatten)]
    pub why: WhyArgs,
}

/// Which node to hold or release, and the reason.
#[derive(Debug, Args)]
pub struct HoldNodeArgs {
    /// Release it
    #[arg(long)]
    pub release: bool,

    #[command(flatten)]
    pub node: ChangeNodeArgs,
}

/// What to do with pools.
#[derive(Debug, Subcommand)]
pub enum PoolCommand {
    /// List pools: how full they are, which are drained, which keep failing
    #[command(after_help = "\
Example:
  duffy admin list-pools")]
    ListPools {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Empty a pool and keep it empty
    #[command(after_help = "\
Example:
  duffy admin drain-pool virtual-centos9 --reason \"new image\"

Ready nodes are deprovisioned, and no new ones are provisioned. Lent nodes stay with their \
tenants until the sessions end. New requests are refused, as for an empty pool.")]
    DrainPool(ChangePoolArgs),
    /// Fill a drained pool again, or retry a failing one now
    #[command(after_help = "\
Example:
  duffy admin resume-pool virtual-centos9 --reason \"image is there\"")]
    ResumePool(ChangePoolArgs),
}

/// Which pool to change, and the reason.
#[derive(Debug, Args)]
pub struct ChangePoolArgs {
    /// Name of the pool
    pub name: String,

    #[command(flatten)]
    pub why: WhyArgs,
}

/// What to do with the history.
#[derive(Debug, Subcommand)]
pub enum HistoryCommand {
    /// Print the events of a node, oldest first
    #[command(after_help = "\
Examples:
  duffy admin node-events 17
  duffy admin node-events 17 --verbose     With the full output of playbooks and SSH
  duffy admin node-events 17 --json        For scripts")]
    NodeEvents(EventsArgs),
    /// Print the events of a session and its nodes, oldest first
    #[command(after_help = "\
Example:
  duffy admin session-events 4")]
    SessionEvents(EventsArgs),
    /// Remove old history
    #[command(after_help = "\
Examples:
  duffy admin purge --older-than 90d --reason \"disk is full\" --dry-run
  duffy admin purge --older-than 90d --reason \"disk is full\"

Only events are removed. Nodes, sessions and tenants are kept forever.")]
    Purge(PurgeArgs),
}

/// Which events to print.
#[derive(Debug, Args)]
pub struct EventsArgs {
    /// Number of the node or session
    pub id: i64,

    /// Maximum number of events
    #[arg(long, value_name = "NUMBER", default_value_t = 1000,
        value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub limit: u32,

    /// Only events after the one with this number
    #[arg(long, value_name = "NUMBER", default_value_t = 0,
        value_parser = clap::value_parser!(i64).range(0..))]
    pub after: i64,

    /// Print all lines of the details, not only the first
    #[arg(short, long)]
    pub verbose: bool,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Which events to remove, and the reason.
#[derive(Debug, Args)]
pub struct PurgeArgs {
    /// Minimum age of the removed events: 90d, 12w, 36h
    #[arg(long, value_name = "TIME", value_parser = parse_age)]
    pub older_than: Duration,

    /// Report the number of events, but remove nothing
    #[arg(long)]
    pub dry_run: bool,

    #[command(flatten)]
    pub why: WhyArgs,
}

/// How much to check.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Expect full pools, and no work in progress without a reason
    #[arg(long)]
    pub at_rest: bool,

    /// Do not check the keys on nodes
    #[arg(long)]
    pub no_ssh: bool,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}
