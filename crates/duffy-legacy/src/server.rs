//! Listens, and serves connections within limits on their number and on time.
//!
//! Its own few lines instead of duffy-server's: this crate does without that one, and clients of
//! the old API speak HTTP/1 only.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream, lookup_host};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use crate::{Legacy, router};

/// How much of a client is put up with.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Time to send a request's header.
    pub header_read: Duration,
    /// Time to fetch a reply, and to begin the next request on the same connection.
    pub idle: Duration,
    /// Most connections at once; more wait to be accepted.
    pub connections: usize,
    /// Time that running requests have to end when the server stops.
    pub shutdown: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_read: Duration::from_secs(10),
            idle: Duration::from_mins(1),
            connections: 1024,
            // In `duffy run` the web API, which ends last, needs a part of its minute.
            shutdown: Duration::from_secs(30),
        }
    }
}

/// Most bytes of a request's header.
const MAX_HEADER: usize = 64 * 1024;

/// Pause after a connection could not be accepted, for want of file descriptors mostly.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Why nothing can listen there.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The host's name is unknown, or belongs to another machine.
    #[error(
        "{address} is no address of this machine; set the old API's `host` to one, 127.0.0.1 say"
    )]
    NotLocal {
        /// Host and port.
        address: String,
    },
    /// The port is in use.
    #[error(
        "{address} is taken by another program; stop it, or set another `port` for the old API"
    )]
    Taken {
        /// Host and port.
        address: String,
    },
    /// Anything else.
    #[error("the old API cannot listen on {address}: {source}")]
    Other {
        /// Host and port.
        address: String,
        /// What the system said.
        source: io::Error,
    },
}

/// Listens on a port of a host: a name or an address, IPv6 in brackets or not.
pub async fn bind(host: &str, port: u16) -> Result<TcpListener, BindError> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let address = format!("{host}:{port}");
    let Ok(found) = lookup_host((bare, port)).await else {
        return Err(BindError::NotLocal { address });
    };
    let found: Vec<SocketAddr> = found.collect();
    match TcpListener::bind(&found[..]).await {
        Ok(listener) => Ok(listener),
        Err(source) => Err(match source.kind() {
            io::ErrorKind::AddrInUse => BindError::Taken { address },
            io::ErrorKind::AddrNotAvailable => BindError::NotLocal { address },
            _ => BindError::Other { address, source },
        }),
    }
}

/// Serves the old API until told to stop; then accepts no more, lets running requests end within
/// `limits.shutdown`, and cuts off what remains.
pub async fn serve(
    listener: TcpListener,
    legacy: Arc<Legacy>,
    limits: Limits,
    stop: CancellationToken,
) {
    let router = router::router(Arc::clone(&legacy));
    let slots = Arc::new(Semaphore::new(limits.connections));
    let connections = TaskTracker::new();
    let cut_off = CancellationToken::new();
    loop {
        let accepted = async {
            let slot = Arc::clone(&slots).acquire_owned().await;
            (slot, listener.accept().await)
        };
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = accepted => accepted,
        };
        match accepted {
            (Ok(slot), Ok((stream, peer))) => {
                let run = run(stream, peer, router.clone(), limits, stop.clone(), slot);
                let cut_off = cut_off.clone();
                connections.spawn(cut_off.run_until_cancelled_owned(run));
            }
            (_, Err(error)) => {
                // It may be for want of file descriptors, which takes a while to pass.
                tracing::warn!(%error, "cannot accept a connection to the old API");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
            (Err(_), _) => break,
        }
    }
    drop(listener);
    connections.close();
    let end = async {
        connections.wait().await;
        legacy.tasks().close();
        legacy.tasks().wait().await;
    };
    if tokio::time::timeout(limits.shutdown, end).await.is_err() {
        tracing::warn!("requests to the old API did not end in time and are cut off");
        cut_off.cancel();
        connections.wait().await;
    }
}

async fn run(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    limits: Limits,
    stop: CancellationToken,
    _slot: OwnedSemaphorePermit,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot send small replies at once");
    }
    let activity = Arc::new(Activity::default());
    let service = {
        let activity = Arc::clone(&activity);
        hyper::service::service_fn(move |request: hyper::Request<Incoming>| {
            let running = Running::begin(&activity);
            let reply = router.clone().oneshot(request.map(Body::new));
            async move {
                let reply: Result<Response, Infallible> = reply.await;
                drop(running);
                reply
            }
        })
    };
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_read)
        .max_buf_size(MAX_HEADER)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let mut stopping = false;
    loop {
        tokio::select! {
            result = connection.as_mut() => {
                if let Err(error) = result {
                    tracing::debug!(%error, %peer, "a connection to the old API broke");
                }
                return;
            }
            () = stop.cancelled(), if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
            () = activity.idle_for(limits.idle) => {
                tracing::debug!(%peer, "an idle connection to the old API is closed");
                return;
            }
        }
    }
}

/// When the last request on a connection ended; `None` while one runs. hyper sees no client that
/// does not fetch its reply.
#[derive(Debug)]
struct Activity(Mutex<Option<Instant>>);

impl Default for Activity {
    fn default() -> Self {
        Self(Mutex::new(Some(Instant::now())))
    }
}

impl Activity {
    fn set(&self, idle_since: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = idle_since;
    }

    /// Ends when nothing has run for so long.
    async fn idle_for(&self, limit: Duration) {
        loop {
            let since = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let wake = since.unwrap_or_else(Instant::now) + limit;
            if wake <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(wake).await;
        }
    }
}

/// A request that runs.
struct Running(Arc<Activity>);

impl Running {
    fn begin(activity: &Arc<Activity>) -> Self {
        activity.set(None);
        Self(Arc::clone(activity))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.set(Some(Instant::now()));
    }
}
