//! Limits on what clients may use.

use std::time::Duration;

/// Limits on what a client may use.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Time to send a request's header, and to begin the next request on the same connection.
    pub header_read: Duration,
    /// Longest time that a reply makes no progress, and that a connection is idle.
    pub idle: Duration,
    /// Most open connections. A new one closes the one that is idle for the longest time, and waits while none is idle.
    pub connections: usize,
    /// Time that running requests have to end when the server stops.
    pub shutdown: Duration,
    /// Whether clients may use HTTP/2, besides HTTP/1.
    pub http2: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_read: Duration::from_secs(10),
            idle: Duration::from_mins(1),
            connections: 1024,
            shutdown: Duration::from_secs(30),
            http2: true,
        }
    }
}
