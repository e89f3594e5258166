//! `app`: the web API.

use std::time::Duration;

use super::{LogLevel, TrustedProxies, accept_python_logging, accept_retries};
use crate::decode::Cursor;

/// The `app` section. All fields after `port` are additions to the original.
#[derive(Debug, Clone)]
pub struct App {
    /// How much is logged; `None` leaves it to the command line.
    pub loglevel: Option<LogLevel>,
    /// Address to listen on.
    pub host: String,
    /// Port to listen on.
    pub port: u16,
    /// Maximum number of connections at a time.
    pub max_connections: usize,
    /// How long a client may take to send a request's header.
    pub header_timeout: Duration,
    /// Proxies whose statements about a client's address are trusted.
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
    pub(crate) fn decode(cursor: &Cursor<'_>) -> Option<Self> {
        let default = Self::default();
        cursor.section(|fields| {
            fields.read("logging", accept_python_logging);
            fields.read("retries", accept_retries);
            Some(Self {
                loglevel: fields.read("loglevel", LogLevel::decode),
                host: fields.read_or("host", default.host, Cursor::owned_text),
                port: fields.read_or("port", default.port, Cursor::port),
                max_connections: fields.read_or("max-connections", default.max_connections, |at| {
                    at.integer(1..=1_000_000)
                }),
                header_timeout: fields.read_or("header-timeout", default.header_timeout, |at| {
                    at.duration(Duration::from_millis(100))
                }),
                trusted_proxies: fields.read_or(
                    "trusted-proxies",
                    default.trusted_proxies,
                    TrustedProxies::decode,
                ),
            })
        })
    }
}
