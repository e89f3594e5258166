//! The arguments of `duffy client`.

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand, ValueEnum};
use duffy_api::NodesSpec;

use super::values::{parse_nodes_spec, parse_session_id};

/// Which API to call, as which tenant, and how to print the reply.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  duffy client list-pools
  duffy client --format yaml show-pool virtual-centos9
  duffy client request-session pool=virtual-centos9,quantity=2
  duffy client --url http://duffy.example.org:8080/api/v1 --auth-name ci list-sessions

The configuration's `client` section supplies what the options do not. Other users of the machine \
can see a command's arguments, so put the key there or in DUFFY_AUTH_KEY.

The reply goes to the standard output, even if it is an error of the API; the exit code is then 1.")]
pub struct ClientArgs {
    /// Base URL of the API
    #[arg(long)]
    pub url: Option<String>,

    /// Name of the tenant
    #[arg(long, value_name = "NAME")]
    pub auth_name: Option<String>,

    /// Key of the tenant
    #[arg(
        long,
        value_name = "KEY",
        env = "DUFFY_AUTH_KEY",
        hide_env_values = true
    )]
    pub auth_key: Option<String>,

    /// How to print the reply
    #[arg(long, value_enum, ignore_case = true, default_value = "json")]
    pub format: Format,

    /// What to call.
    #[command(subcommand)]
    pub command: ClientCommand,
}

/// The form in which replies are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Indented JSON, members in the server's order
    Json,
    /// YAML, members sorted
    Yaml,
    /// A line of shell assignments for each node or pool
    Flat,
}

/// What to call.
#[derive(Debug, Subcommand)]
pub enum ClientCommand {
    /// List the tenant's running sessions
    #[command(after_help = "\
Example:
  duffy client --format flat list-sessions")]
    ListSessions,
    /// Show a session
    #[command(after_help = "\
Example:
  duffy client show-session 17")]
    ShowSession {
        /// Number of the session
        #[arg(value_parser = parse_session_id)]
        session_id: i64,
    },
    /// Request a session with all of these nodes, or none
    #[command(after_help = "\
Examples:
  duffy client request-session pool=virtual-centos9,quantity=2
  duffy client request-session pool=virtual-centos9,quantity=1 pool=metal-x86_64,quantity=3")]
    RequestSession {
        /// How many nodes from which pool
        #[arg(required = true, value_name = "pool=POOL,quantity=NUMBER", value_parser = parse_nodes_spec)]
        nodes_specs: Vec<NodesSpec>,
    },
    /// Retire a session and return its nodes
    #[command(after_help = "\
Example:
  duffy client retire-session 17")]
    RetireSession {
        /// Number of the session
        #[arg(value_parser = parse_session_id)]
        session_id: i64,
    },
    /// List the pools
    #[command(after_help = "\
Example:
  duffy client list-pools")]
    ListPools,
    /// Show a pool and the number of its nodes in each state
    #[command(after_help = "\
Example:
  duffy client show-pool virtual-centos9")]
    ShowPool {
        /// Name of the pool
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        name: String,
    },
}
