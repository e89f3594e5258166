//! Accepts connections and serves a router on them, within limits.
//!
//! `axum::serve` limits neither the time for a request's header nor the number of connections, and waits without a deadline
//! when it stops.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::connection::Connection;
use crate::connection_limit::ConnectionLimit;
use crate::limits::Limits;
use crate::unsent_replies::UnsentReplies;

/// Pause after a failure to accept a connection. Its usual cause is that there are no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Serves until `stop`. Then it accepts no more connections, lets running requests end within `limits.shutdown`, and cuts off
/// the rest. Requests have `ConnectInfo<SocketAddr>` as an extension.
pub async fn serve(listener: TcpListener, router: Router, limits: Limits, stop: CancellationToken) {
    let unsent = Arc::new(UnsentReplies::new());
    let limit = Arc::new(ConnectionLimit::new(limits.connections));
    let connections = TaskTracker::new();
    let cut_off = CancellationToken::new();
    // Owns the listener: the port is closed when this is dropped.
    let accept = async {
        let listener = listener;
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    let connection = Connection {
                        router: router.clone(),
                        peer,
                        limits,
                        stop: stop.clone(),
                        permit: limit.acquire().await,
                        unsent: Arc::clone(&unsent),
                    };
                    let run = connection.run(stream);
                    connections.spawn(cut_off.clone().run_until_cancelled_owned(run));
                }
                Err(error) if is_of_one_connection(error.kind()) => {
                    tracing::debug!(%error, "a client closed its connection before it was accepted");
                }
                Err(error) => {
                    tracing::error!(%error, "cannot accept connections, trying again");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    let serve = async {
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = accept => {}
        }
        connections.close();
        let ended = tokio::time::timeout(limits.shutdown, connections.wait()).await;
        if ended.is_err() {
            tracing::warn!(
                connections = connections.len(),
                "requests did not end in time and are cut off"
            );
            cut_off.cancel();
            connections.wait().await;
        }
    };
    tokio::select! {
        () = serve => {}
        () = unsent.cut_off_stalled(limits.idle) => {}
    }
}

fn is_of_one_connection(error: ErrorKind) -> bool {
    matches!(
        error,
        ErrorKind::ConnectionAborted
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionRefused
            | ErrorKind::Interrupted
    )
}
