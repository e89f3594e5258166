//! The sections of the configuration, a file each.

mod app;
mod client;
mod database;
mod defaults;
mod metaclient;
mod nodepools;
mod proxies;
mod retries;
mod ssh;
mod tasks;

pub use app::App;
pub use client::Client;
pub use database::Database;
pub use defaults::Defaults;
pub use metaclient::{Metaclient, PoolMap, PoolRequest, Selector};
pub use nodepools::{
    Ansible, Mechanism, NodePools, Playbook, Pool, RenderedVar, RenderedVars, ReuseValue, Simulated,
};
pub use proxies::TrustedProxies;
pub use retries::{Retries, RetryOverrides};
pub use ssh::{Ssh, SshClient};
pub use tasks::Tasks;

use crate::decode::{Cursor, Report};
use crate::yaml::Data;

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Everything, including what dependencies say.
    Trace,
    /// What helps to find a fault.
    Debug,
    /// What happens.
    Info,
    /// What may need a look.
    Warning,
    /// What failed.
    Error,
    /// What makes going on impossible.
    Critical,
}

impl LogLevel {
    const NAMES: [(&'static str, Self); 6] = [
        ("trace", Self::Trace),
        ("debug", Self::Debug),
        ("info", Self::Info),
        ("warning", Self::Warning),
        ("error", Self::Error),
        ("critical", Self::Critical),
    ];

    fn decode(cursor: &Cursor<'_>, report: &mut Report) -> Option<Self> {
        cursor.choice(report, &Self::NAMES)
    }

    /// Its name in the configuration.
    pub fn name(self) -> &'static str {
        Self::NAMES
            .iter()
            .find(|(_, level)| *level == self)
            .map_or("info", |(name, _)| name)
    }
}

/// A TCP port.
fn decode_port(cursor: &Cursor<'_>, report: &mut Report) -> Option<u16> {
    cursor
        .integer(report, 1..=65535)
        .and_then(|port| u16::try_from(port).ok())
}

/// A number that need not be exact when it is beyond all use.
fn decode_count(cursor: &Cursor<'_>, report: &mut Report, min: i64) -> Option<u32> {
    cursor
        .integer(report, min..=i64::MAX)
        .map(|count| u32::try_from(count).unwrap_or(u32::MAX))
}

/// A URL of the web, kept as written but for blanks around it.
fn decode_http_url(cursor: &Cursor<'_>, report: &mut Report) -> Option<String> {
    let text = cursor.text(report)?.trim();
    match url::Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => {
            Some(text.to_owned())
        }
        _ => cursor.refuse(report, "must be a URL that starts with http:// or https://"),
    }
}

/// Python's settings for logging: accepted, checked as far as the original did, and unused.
fn accept_python_logging(cursor: &Cursor<'_>, report: &mut Report) -> Option<()> {
    let fields = cursor.open_fields(report)?;
    let version = fields.require(report, "version")?;
    if !matches!(version.node.data, Data::Text(_)) && version.as_integer() == Some(1) {
        cursor.warn(
            report,
            "this configures Python's logging and is not used; see loglevel",
        );
        return Some(());
    }
    version.refuse(report, "must be 1")
}
