//! `ssh`: how Duffy reaches nodes to put tenants' keys on them. An addition to the original.

use std::path::PathBuf;
use std::time::Duration;

use crate::decode::Cursor;

/// Which SSH client connects to nodes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SshClient {
    /// The built-in client, unless the service user's ssh_config requires what it does not support.
    #[default]
    Auto,
    /// Always the built-in client.
    Native,
    /// Always `/usr/bin/ssh`.
    OpenSsh,
}

/// The `ssh` section.
#[derive(Debug, Clone)]
pub struct Ssh {
    /// Which client is used.
    pub client: SshClient,
    /// Timeout of the connection to a node.
    pub connect_timeout: Duration,
    /// Timeout of all work on one node, including the connection.
    pub timeout: Duration,
    /// How long a provisioned node may take to let Duffy in.
    pub ready_timeout: Duration,
    /// How often to check that a ready node lets Duffy in.
    pub probe_interval: Duration,
    /// Connections to ready nodes that stay open.
    pub hold: Hold,
    /// Private keys to log in with; empty means the service user's own.
    pub identity_files: Vec<PathBuf>,
    /// Read instead of the service user's and the system's ssh_config.
    pub config_file: Option<PathBuf>,
}

/// `ssh.hold`: connections to ready nodes that stay open, so that a session costs one command on each of its nodes.
#[derive(Debug, Clone)]
pub struct Hold {
    /// Whether the web API holds connections.
    pub enabled: bool,
    /// The largest number of connections in each process.
    pub max_connections: u32,
    /// The largest number of logins per second, to hold connections and to probe nodes.
    pub logins_per_second: u32,
    /// How often to check that a node still answers.
    pub keepalive: Duration,
}

impl Default for Hold {
    fn default() -> Self {
        Self {
            enabled: true,
            max_connections: 200,
            logins_per_second: 20,
            keepalive: Duration::from_secs(30),
        }
    }
}

impl Hold {
    fn decode(cursor: &Cursor<'_>) -> Option<Self> {
        let default = Self::default();
        cursor.section(|fields| {
            Some(Self {
                enabled: fields.read_or("enabled", default.enabled, Cursor::boolean),
                max_connections: fields.read_or("max-connections", default.max_connections, |at| {
                    at.integer(1..=100_000)
                }),
                logins_per_second: fields.read_or(
                    "logins-per-second",
                    default.logins_per_second,
                    |at| at.integer(1..=1_000),
                ),
                keepalive: fields.read_or("keepalive", default.keepalive, |at| {
                    at.duration(Duration::from_secs(1))
                }),
            })
        })
    }
}

impl Default for Ssh {
    fn default() -> Self {
        Self {
            client: SshClient::Auto,
            connect_timeout: Duration::from_secs(10),
            timeout: Duration::from_mins(1),
            ready_timeout: Duration::from_mins(2),
            probe_interval: Duration::from_mins(5),
            hold: Hold::default(),
            identity_files: Vec::new(),
            config_file: None,
        }
    }
}

impl Ssh {
    pub(crate) fn decode(cursor: &Cursor<'_>) -> Option<Self> {
        let default = Self::default();
        let clients = [
            ("auto", SshClient::Auto),
            ("native", SshClient::Native),
            ("openssh", SshClient::OpenSsh),
        ];
        let timeout = |at: &Cursor<'_>| at.duration(Duration::from_millis(100));
        cursor.section(|fields| {
            Some(Self {
                client: fields.read_or("client", default.client, |at| at.choice(&clients)),
                connect_timeout: fields.read_or(
                    "connect-timeout",
                    default.connect_timeout,
                    timeout,
                ),
                timeout: fields.read_or("timeout", default.timeout, timeout),
                ready_timeout: fields.read_or("ready-timeout", default.ready_timeout, timeout),
                probe_interval: fields.read_or("probe-interval", default.probe_interval, |at| {
                    at.duration(Duration::from_secs(1))
                }),
                hold: fields.read_or("hold", default.hold, Hold::decode),
                identity_files: fields.read_or("identity-files", Vec::new(), |at| {
                    Some(at.items()?.iter().filter_map(decode_path).collect())
                }),
                config_file: fields.read("config-file", decode_path),
            })
        })
    }
}

/// Reads `~/…` as ssh does: below the home directory.
fn decode_path(cursor: &Cursor<'_>) -> Option<PathBuf> {
    let path = cursor.path_name()?;
    Some(match (path.strip_prefix("~"), std::env::var_os("HOME")) {
        (Ok(rest), Some(home)) => PathBuf::from(home).join(rest),
        _ => path,
    })
}
