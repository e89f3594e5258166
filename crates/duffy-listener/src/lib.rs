//! Accepts connections and serves them, within limits on their number, on time and on memory.
//!
//! `axum::serve` waits for ever for a header that was begun, and has neither a cap on connections
//! nor a deadline for shutting down. The web API and the old API both stand on this; it knows
//! neither of them.

mod activity;
mod body;
mod connection;
mod linger;
mod room;

use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Body;
use hyper::{Request, Response};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service;

pub use body::RequestBody;

use connection::Connection;
use room::Room;

/// How much of a client is put up with.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Time to send a request's header, and to begin the next one on the same connection.
    pub header_read: Duration,
    /// Time to fetch a reply, from when it is ready; and how long connections are idle.
    pub idle: Duration,
    /// Most connections at once. One more takes the place of that which has been idle for
    /// longest; while none is, it waits.
    pub connections: usize,
    /// Time that running requests have to end when the server stops.
    pub shutdown: Duration,
    /// Whether HTTP/2 is spoken, besides HTTP/1.
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

/// Who sends a request; an extension of it.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// Pause after a connection could not be accepted, for want of file descriptors mostly.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Serves until told to stop; then accepts no more, lets running requests end within
/// `limits.shutdown`, and cuts off what remains.
pub async fn serve<S, B>(listener: TcpListener, service: S, limits: Limits, stop: CancellationToken)
where
    S: Service<Request<RequestBody>, Response = Response<B>, Error = Infallible>,
    S: Clone + Send + Sync + 'static,
    S::Future: Send,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let room = Arc::new(Room::new(limits.connections));
    let connections = TaskTracker::new();
    let cut_off = CancellationToken::new();
    loop {
        let accepted = async {
            let (stream, peer) = listener.accept().await?;
            Ok::<_, io::Error>((stream, peer, Room::enter(&room).await))
        };
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = accepted => accepted,
        };
        match accepted {
            Ok((stream, peer, place)) => {
                let connection = Connection {
                    service: service.clone(),
                    peer,
                    limits,
                    stop: stop.clone(),
                    place,
                };
                let run = connection.run(stream);
                connections.spawn(cut_off.clone().run_until_cancelled_owned(run));
            }
            Err(error) if is_of_one_connection(&error) => {
                tracing::debug!(%error, "a connection was given up before it was accepted");
            }
            Err(error) => {
                tracing::error!(%error, "cannot accept connections, trying again");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
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
