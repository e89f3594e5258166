//! `ssh`: how nodes are reached to put tenants' keys on them. An addition to the original.

use std::path::PathBuf;
use std::time::Duration;

use crate::decode::{Cursor, Report};

/// Which SSH client talks to nodes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SshClient {
    /// The built-in one, unless the service user's ssh_config asks for what it cannot do.
    #[default]
    Auto,
    /// Always the built-in one.
    Native,
    /// Always `/usr/bin/ssh`.
    OpenSsh,
}

/// The `ssh` section.
#[derive(Debug, Clone)]
pub struct Ssh {
    /// Which client.
    pub client: SshClient,
    /// How long the connection to a node may take.
    pub connect_timeout: Duration,
    /// How long all of the work on one node may take, the connection included.
    pub timeout: Duration,
    /// Private keys to log in with; empty means the service user's own.
    pub identity_files: Vec<PathBuf>,
    /// Read in place of the service user's and the system's ssh_config.
    pub config_file: Option<PathBuf>,
}

impl Default for Ssh {
    fn default() -> Self {
        Self {
            client: SshClient::Auto,
            connect_timeout: Duration::from_secs(10),
            timeout: Duration::from_mins(1),
            identity_files: Vec::new(),
            config_file: None,
        }
    }
}

impl Ssh {
    pub(crate) fn decode(cursor: &Cursor<'_>, report: &mut Report) -> Option<Self> {
        let fields = cursor.fields(
            report,
            &[
                "client",
                "connect-timeout",
                "timeout",
                "identity-files",
                "config-file",
            ],
        )?;
        let mut ssh = Self::default();
        let clients = [
            ("auto", SshClient::Auto),
            ("native", SshClient::Native),
            ("openssh", SshClient::OpenSsh),
        ];
        if let Some(client) = fields
            .get("client")
            .and_then(|at| at.choice(report, &clients))
        {
            ssh.client = client;
        }
        let shortest = Duration::from_millis(100);
        if let Some(timeout) = fields
            .get("connect-timeout")
            .and_then(|at| at.duration(report, shortest))
        {
            ssh.connect_timeout = timeout;
        }
        if let Some(timeout) = fields
            .get("timeout")
            .and_then(|at| at.duration(report, shortest))
        {
            ssh.timeout = timeout;
        }
        for file in fields
            .get("identity-files")
            .and_then(|at| at.items(report))
            .unwrap_or_default()
        {
            ssh.identity_files
                .extend(file.path_name(report).map(expand_home));
        }
        ssh.config_file = fields
            .get("config-file")
            .and_then(|at| at.path_name(report))
            .map(expand_home);
        Some(ssh)
    }
}

/// `~/…` as ssh reads it: below the home directory.
fn expand_home(path: PathBuf) -> PathBuf {
    match (path.strip_prefix("~"), std::env::var_os("HOME")) {
        (Ok(rest), Some(home)) => PathBuf::from(home).join(rest),
        _ => path,
    }
}
