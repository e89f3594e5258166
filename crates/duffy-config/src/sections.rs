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
pub use ssh::{Hold, Ssh, SshClient};
pub use tasks::Tasks;

use crate::decode::Cursor;
use crate::yaml::Data;

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Everything, including messages of dependencies.
    Trace,
    /// Details that help to find a fault.
    Debug,
    /// Normal events.
    Info,
    /// Events that may need attention.
    Warning,
    /// Failures.
    Error,
    /// Failures that stop the program.
    Critical,
}

impl LogLevel {
    fn decode(cursor: &Cursor<'_>) -> Option<Self> {
        cursor.choice(&[
            ("trace", Self::Trace),
            ("debug", Self::Debug),
            ("info", Self::Info),
            ("warning", Self::Warning),
            ("error", Self::Error),
            ("critical", Self::Critical),
        ])
    }
}

/// Python's settings for logging: accepted, checked as the original does, and not used.
fn accept_python_logging(cursor: &Cursor<'_>) -> Option<()> {
    let version = cursor.fields()?.require("version")?;
    if matches!(version.node.data, Data::Text(_)) || version.as_integer() != Some(1) {
        return version.refuse("must be 1");
    }
    cursor.warn("this configures Python's logging and is not used; see loglevel");
    Some(())
}

/// How the original retries a failed transaction: accepted, checked as there, and not used.
fn accept_retries(cursor: &Cursor<'_>) -> Option<()> {
    cursor.section(|fields| {
        fields.read("no-attempts", |at| at.count(1));
        fields.read("delay-min", |at| at.number(0.0..=f64::INFINITY));
        fields.read("delay-max", |at| at.number(0.0..=f64::INFINITY));
        fields.read("delay-backoff-factor", |at| at.number(1.0..=f64::INFINITY));
        fields.read("delay-add-fuzz", |at| at.number(0.0..=f64::INFINITY));
        Some(())
    })
}
