//! `app`: the web API.

use std::time::Duration;

use super::{LogLevel, TrustedProxies, accept_python_logging, accept_retries, decode_port};
use crate::decode::{Cursor, Report};

/// The `app` section.
#[derive(Debug, Clone)]
pub struct App {
    /// How much is logged; `None` leaves it to the command line.
    pub loglevel: Option<LogLevel>,
    /// Address to listen on.
    pub host: String,
    /// Port to listen on.
    pub port: u16,
    /// Most connections at one time. An addition to the original.
    pub max_connections: usize,
    /// How long a client may take to send a request's header. An addition to the original.
    pub header_timeout: Duration,
    /// Proxies that are believed when they say for whom they ask. An addition to the original.
    pub trusted_proxies: TrustedProxies,
}

impl Default for App {
    fn default() -> Self {
        Self {
            loglevel: None,
            host: "127.0.0.1".into(),
            port: 8080,
            max_connections: 1024,
            header_timeout: Duration::from_secs(10),
            trusted_proxies: TrustedProxies::default(),
        }
    }
}

impl App {
    pub(crate) fn decode(cursor: &Cursor<'_>, report: &mut Report) -> Option<Self> {
        let known = &[
            "loglevel",
            "host",
            "port",
            "logging",
            "retries",
            "max-connections",
            "header-timeout",
            "trusted-proxies",
        ];
        let fields = cursor.fields(report, known)?;
        let default = Self::default();
        let loglevel = fields.read(report, "loglevel", LogLevel::decode);
        let host = fields.read(report, "host", Cursor::owned_text);
        let port = fields.read(report, "port", decode_port);
        fields.read(report, "logging", accept_python_logging);
        fields.read(report, "retries", accept_retries);
        let most = fields.read(report, "max-connections", |at, report| {
            at.integer(report, 1..=1_000_000)
        });
        let header_timeout = fields.read(report, "header-timeout", |at, report| {
            at.duration(report, Duration::from_millis(100))
        });
        let proxies = fields.read(report, "trusted-proxies", TrustedProxies::decode);
        Some(Self {
            loglevel,
            host: host.unwrap_or(default.host),
            port: port.unwrap_or(default.port),
            max_connections: most.map_or(default.max_connections, |most| most as usize),
            header_timeout: header_timeout.unwrap_or(default.header_timeout),
            trusted_proxies: proxies.unwrap_or_default(),
        })
    }
}
