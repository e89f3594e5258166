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
        let default = Self::default();
        let clients = [
            ("auto", SshClient::Auto),
            ("native", SshClient::Native),
            ("openssh", SshClient::OpenSsh),
        ];
        let client = fields.read(report, "client", |at, report| at.choice(report, &clients));
        let timeout =
            |at: &Cursor<'_>, report: &mut Report| at.duration(report, Duration::from_millis(100));
        let connect_timeout = fields.read(report, "connect-timeout", timeout);
        let timeout = fields.read(report, "timeout", timeout);
        let files = fields.read(report, "identity-files", Cursor::items);
        let identity_files = files.into_iter().flatten();
        let identity_files = identity_files
            .filter_map(|at| decode_path(&at, report))
            .collect();
        Some(Self {
            client: client.unwrap_or_default(),
            connect_timeout: connect_timeout.unwrap_or(default.connect_timeout),
            timeout: timeout.unwrap_or(default.timeout),
            identity_files,
            config_file: fields.read(report, "config-file", decode_path),
        })
    }
}

/// `~/…` as ssh reads it: below the home directory.
fn decode_path(cursor: &Cursor<'_>, report: &mut Report) -> Option<PathBuf> {
    let path = cursor.path_name(report)?;
    Some(match (path.strip_prefix("~"), std::env::var_os("HOME")) {
        (Ok(rest), Some(home)) => PathBuf::from(home).join(rest),
        _ => path,
    })
}
