//! `duffy admin`: what it is told about nodes, pools and the history.

use std::time::Duration;

use clap::{Args, Subcommand};
use duffy_api::NodeState;

use crate::values::{parse_age, parse_reason, parse_state};

/// What to do with nodes.
#[derive(Debug, Subcommand)]
pub enum NodeCommand {
    /// List nodes
    #[command(after_help = "\
Examples:
  duffy admin list-nodes --pool virtual-centos9
  duffy admin list-nodes --state failed --json   For scripts
  duffy admin list-nodes --all                   Retired ones too")]
    ListNodes(ListNodesArgs),
    /// Show a node, its last error and what happened to it last
    #[command(after_help = "\
Example:
  duffy admin show-node 17")]
    ShowNode(ShowArgs),
    /// Take a node out for good
    #[command(after_help = "\
Example:
  duffy admin retire-node 17 --reason \"broken fan\"

A worker deprovisions it, and it is not used again. A node that is lent stays with its tenant until \
the session ends.")]
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

A node that is held is not lent, picked, worked on or repaired. One that is lent stays so until its \
session ends, and is kept then.")]
    HoldNode(HoldNodeArgs),
}

/// Which nodes, how shown.
#[derive(Debug, Args)]
pub struct ListNodesArgs {
    /// Only those of this pool
    #[arg(long, value_name = "NAME")]
    pub pool: Option<String>,

    /// Only those in this state: unused, provisioning, ready, contextualizing, deployed,
    /// deprovisioning, failed or done
    #[arg(long, value_parser = parse_state)]
    pub state: Option<NodeState>,

    /// Retired ones too
    #[arg(long)]
    pub all: bool,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Which row, how shown.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// Number of the node
    pub id: i64,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Why something is changed, and how the result is shown.
#[derive(Debug, Args)]
pub struct WhyArgs {
    /// Why, for the history
    #[arg(long, value_name = "TEXT", value_parser = parse_reason)]
    pub reason: String,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Which node to change, and why.
#[derive(Debug, Args)]
pub struct ChangeNodeArgs {
    /// Number of the node
    pub id: i64,

    #[command(flatten)]
    pub why: WhyArgs,
}

/// Which node to hold or to let go of, and why.
#[derive(Debug, Args)]
pub struct HoldNodeArgs {
    /// Let go of it
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

What is ready is deprovisioned, and nothing new is made. What is lent stays so until its session \
ends; new requests are refused as when a pool is empty.")]
    DrainPool(ChangePoolArgs),
    /// Have a drained pool filled again, or one that keeps failing tried at once
    #[command(after_help = "\
Example:
  duffy admin resume-pool virtual-centos9 --reason \"image is there\"")]
    ResumePool(ChangePoolArgs),
}

/// Which pool to change, and why.
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
    /// Print what happened to a node, oldest first
    #[command(after_help = "\
Examples:
  duffy admin node-events 17
  duffy admin node-events 17 --verbose     With all that playbooks and SSH said
  duffy admin node-events 17 --json        For scripts")]
    NodeEvents(EventsArgs),
    /// Print what happened to a session and to its nodes while it had them, oldest first
    #[command(after_help = "\
Example:
  duffy admin session-events 4")]
    SessionEvents(EventsArgs),
    /// Remove old history
    #[command(after_help = "\
Examples:
  duffy admin purge --older-than 90d --reason \"disk is full\" --dry-run
  duffy admin purge --older-than 90d --reason \"disk is full\"

Only events are removed. Nodes, sessions and tenants are kept for ever.")]
    Purge(PurgeArgs),
}

/// Whose history, and which part.
#[derive(Debug, Args)]
pub struct EventsArgs {
    /// Number of the node or session
    pub id: i64,

    /// How many events at most
    #[arg(long, value_name = "NUMBER", default_value_t = 1000,
        value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub limit: u32,

    /// Only later ones than the event of this number
    #[arg(long, value_name = "NUMBER", default_value_t = 0,
        value_parser = clap::value_parser!(i64).range(0..))]
    pub after: i64,

    /// Print all lines of the details, not the first alone
    #[arg(short, long)]
    pub verbose: bool,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// What to remove, and why.
#[derive(Debug, Args)]
pub struct PurgeArgs {
    /// How old it has to be: 90d, 12w, 36h
    #[arg(long, value_name = "TIME", value_parser = parse_age)]
    pub older_than: Duration,

    /// Say how much it is, and remove nothing
    #[arg(long)]
    pub dry_run: bool,

    #[command(flatten)]
    pub why: WhyArgs,
}

/// How closely to look.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Expect full pools, and no work under way without a reason
    #[arg(long)]
    pub at_rest: bool,

    /// Do not look at the keys on nodes
    #[arg(long)]
    pub no_ssh: bool,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}
