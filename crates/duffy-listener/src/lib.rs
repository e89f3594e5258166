//! Accepts connections and serves them, within limits on their number, on time and on memory.
//!
//! `axum::serve` waits for ever for a header that was begun, and has neither a cap on connections
//! nor a deadline for shutting down. The web API and the old API both stand on this; it knows
//! neither of them.

mod activity;
mod body;
mod connection;
mod content;
pub mod forwarded;
mod linger;
mod lists;
mod outgoing;
mod reply;
mod room;
mod streams;

use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Body;
use hyper::{Request, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service;

pub use body::RequestBody;
pub use content::{Content, Fixed};
pub use lists::{ListError, Lists};
pub use outgoing::SMALL;

use connection::Connection;
use outgoing::Outgoing;
use room::{Place, Room};

/// How much of a client is put up with.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Time to send a request's header, and to begin the next one on the same connection.
    pub header_read: Duration,
    /// How long a reply may make no progress, and how long connections are idle.
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
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let outgoing = Arc::new(Outgoing::new());
    let connections = TaskTracker::new();
    let cut_off = CancellationToken::new();
    let serve = async {
        let room = Room::new(limits.connections);
        let accept = |stream, peer, place| {
            let connection = Connection {
                service: service.clone(),
                peer,
                limits,
                stop: stop.clone(),
                place,
                outgoing: Arc::clone(&outgoing),
            };
            let run = connection.run(stream);
            connections.spawn(cut_off.clone().run_until_cancelled_owned(run));
        };
        accept_until(&stop, listener, &Arc::new(room), accept).await;
        end(&connections, &limits, &cut_off).await;
    };
    tokio::select! {
        () = serve => {}
        () = outgoing.cut_off_stalled(limits.idle) => {}
    }
}

async fn accept_until(
    stop: &CancellationToken,
    listener: TcpListener,
    room: &Arc<Room>,
    accept: impl Fn(TcpStream, SocketAddr, Place),
) {
    loop {
        let accepted = async {
            let (stream, peer) = listener.accept().await?;
            Ok::<_, io::Error>((stream, peer, Room::enter(room).await))
        };
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            accepted = accepted => accepted,
        };
        match accepted {
            Ok((stream, peer, place)) => accept(stream, peer, place),
            Err(error) if is_of_one_connection(&error) => {
                tracing::debug!(%error, "a connection was given up before it was accepted");
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
