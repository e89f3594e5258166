//! Accepts connections and serves a router on them, within limits.
//!
//! `axum::serve` limits neither the time for a request's header nor the number of connections, and waits without a deadline
//! when it stops.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::connection::Connection;
use crate::connection_limit::{ConnectionLimit, ConnectionPermit};
use crate::unsent_replies::UnsentReplies;

/// Limits on what a client may use.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Time to send a request's header, and to begin the next request on the same connection.
    pub header_read: Duration,
    /// Longest time that a reply makes no progress, and that a connection is idle.
    pub idle: Duration,
    /// Most connections at once. A new one closes the one that is idle for the longest time, and waits while none is idle.
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

/// Pause after a failure to accept a connection. Its usual cause is that there are no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Serves until `stop`. Then it accepts no more connections, lets running requests end within `limits.shutdown`, and cuts off
/// the rest. Requests have `ConnectInfo<SocketAddr>` as an extension.
pub async fn serve(listener: TcpListener, router: Router, limits: Limits, stop: CancellationToken) {
    let unsent = Arc::new(UnsentReplies::new());
    let connections = TaskTracker::new();
    let cut_off = CancellationToken::new();
    let serve = async {
        let limit = Arc::new(ConnectionLimit::new(limits.connections));
        let accept = |stream, peer, permit| {
            let connection = Connection {
                router: router.clone(),
                peer,
                limits,
                stop: stop.clone(),
                permit,
                unsent: Arc::clone(&unsent),
            };
            let run = connection.run(stream);
            connections.spawn(cut_off.clone().run_until_cancelled_owned(run));
        };
        accept_until(&stop, listener, &limit, accept).await;
        end(&connections, &limits, &cut_off).await;
    };
    tokio::select! {
        () = serve => {}
        () = unsent.cut_off_stalled(limits.idle) => {}
    }
}

async fn accept_until(
    stop: &CancellationToken,
    listener: TcpListener,
    limit: &Arc<ConnectionLimit>,
    accept: impl Fn(TcpStream, SocketAddr, ConnectionPermit),
) {
    loop {
        let accepted = async {
            let (stream, peer) = listener.accept().await?;
            Ok::<_, io::Error>((stream, peer, ConnectionLimit::acquire(limit).await))
        };
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            accepted = accepted => accepted,
        };
        match accepted {
            Ok((stream, peer, permit)) => accept(stream, peer, permit),
            Err(error) if is_of_one_connection(&error) => {
                tracing::debug!(%error, "a client closed its connection before it was accepted");
            }
            Err(error) => {
                tracing::error!(%error, "cannot accept connections, trying again");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn end(connections: &TaskTracker, limits: &Limits, cut_off: &CancellationToken) {
    connections.close();
    if tokio::time::timeout(limits.shutdown, connections.wait())
        .await
        .is_err()
    {
        tracing::warn!(
            connections = connections.len(),
            "requests did not end in time and are cut off"
        );
        cut_off.cancel();
        connections.wait().await;
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}
