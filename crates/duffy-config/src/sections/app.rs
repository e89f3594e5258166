//! `app`: the web API.

use std::time::Duration;

use super::{LogLevel, RetryOverrides, TrustedProxies, accept_python_logging, decode_port};
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
    /// How the API retries; see [`crate::Config::retries`].
    pub retries: RetryOverrides,
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
            retries: RetryOverrides::default(),
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
        let mut app = Self {
            loglevel: fields
                .get("loglevel")
                .and_then(|at| LogLevel::decode(&at, report)),
            ..Self::default()
        };
        if let Some(host) = fields.get("host").and_then(|at| at.owned_text(report)) {
            app.host = host;
        }
        if let Some(port) = fields.get("port").and_then(|at| decode_port(&at, report)) {
            app.port = port;
        }
        if let Some(logging) = fields.get("logging") {
            accept_python_logging(&logging, report);
        }
        if let Some(retries) = fields
            .get("retries")
            .and_then(|at| RetryOverrides::decode(&at, report))
        {
            app.retries = retries;
        }
        if let Some(most) = fields
            .get("max-connections")
            .and_then(|at| at.integer(report, 1..=1_000_000))
        {
            app.max_connections = usize::try_from(most).unwrap_or(usize::MAX);
        }
        let shortest = Duration::from_millis(100);
        if let Some(timeout) = fields
            .get("header-timeout")
            .and_then(|at| at.duration(report, shortest))
        {
            app.header_timeout = timeout;
        }
        if let Some(proxies) = fields
            .get("trusted-proxies")
            .and_then(|at| TrustedProxies::decode(&at, report))
        {
            app.trusted_proxies = proxies;
        }
        Some(app)
    }
}
