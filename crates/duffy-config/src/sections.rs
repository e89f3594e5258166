//! The sections of the configuration, a file each.

mod app;
mod client;
mod database;
mod defaults;
mod metaclient;
mod nodepools;
mod proxies;
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
pub use ssh::{Ssh, SshClient};
pub use tasks::Tasks;

use crate::decode::{Cursor, Report};
use crate::template;
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
    fn decode(cursor: &Cursor<'_>, report: &mut Report) -> Option<Self> {
        let levels = [
            ("trace", Self::Trace),
            ("debug", Self::Debug),
            ("info", Self::Info),
            ("warning", Self::Warning),
            ("error", Self::Error),
            ("critical", Self::Critical),
        ];
        cursor.choice(report, &levels)
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

/// A template that can be understood.
fn decode_template(cursor: &Cursor<'_>, report: &mut Report) -> Option<String> {
    let text = cursor.owned_text(report)?;
    template::check(cursor, &text, report);
    Some(text)
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

/// How often and how soon the original tries a failed transaction again: accepted, checked as there, and unused.
fn accept_retries(cursor: &Cursor<'_>, report: &mut Report) -> Option<()> {
    let known = &[
        "no-attempts",
        "delay-min",
        "delay-max",
        "delay-backoff-factor",
        "delay-add-fuzz",
    ];
    let fields = cursor.fields(report, known)?;
    for (key, min) in [
        ("delay-min", 0.0),
        ("delay-max", 0.0),
        ("delay-backoff-factor", 1.0),
        ("delay-add-fuzz", 0.0),
    ] {
        fields.read(report, key, |at, report| {
            at.number(report, min..=f64::INFINITY)
        });
    }
    fields.read(report, "no-attempts", |at, report| {
        decode_count(at, report, 1)
    });
    Some(())
}
