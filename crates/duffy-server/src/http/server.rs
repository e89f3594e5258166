//! Accepts connections and serves them, within limits on their number and on time.
//!
//! `axum::serve` waits for ever for a header that was begun, and has neither a cap on connections
//! nor a deadline for shutting down.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::response::Response;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

/// How much of a client is put up with.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Time to send a request's header, and to begin the next one on the same connection.
    pub header_read: Duration,
    /// Time to fetch a reply, from when it is ready; and how long HTTP/2 connections are idle.
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
            shutdown: Duration::from_secs(30),
        }
    }
}

/// Most bytes of a request's header.
const MAX_HEADER: usize = 64 * 1024;

/// Most requests at once on one HTTP/2 connection.
const MAX_STREAMS: u32 = 64;

/// Pause after a connection could not be accepted, for want of file descriptors mostly.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Serves until told to stop; then accepts no more, lets running requests end within
/// `limits.shutdown`, and cuts off what remains.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    stop: CancellationToken,
) -> io::Result<()> {
    let slots = Arc::new(Semaphore::new(limits.connections));
    let connections = TaskTracker::new();
    let cut_off = CancellationToken::new();
    loop {
        let accepted = async {
            let slot = Arc::clone(&slots).acquire_owned().await;
            (slot.map_err(io::Error::other), listener.accept().await)
        };
        let (slot, accepted) = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = accepted => accepted,
        };
        let slot = slot?;
        match accepted {
            Ok((stream, peer)) => {
                let connection = Connection {
                    router: router.clone(),
                    peer,
                    limits,
                    stop: stop.clone(),
                    slot,
                };
                let cut_off = cut_off.clone();
                connections.spawn(async move {
                    tokio::select! {
                        () = cut_off.cancelled() => {}
                        () = connection.run(stream) => {}
                    }
                });
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
    Ok(())
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

struct Connection {
    router: Router,
    peer: SocketAddr,
    limits: Limits,
    stop: CancellationToken,
    slot: OwnedSemaphorePermit,
}

impl Connection {
    async fn run(self, stream: TcpStream) {
        let Self {
            router,
            peer,
            limits,
            stop,
            slot: _slot,
        } = self;
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot send small replies at once");
        }
        let activity = Arc::new(Activity::new());
        let service = {
            let activity = Arc::clone(&activity);
            hyper::service::service_fn(move |request: hyper::Request<Incoming>| {
                let running = Activity::begin(&activity);
                let mut request = request.map(Body::new);
                request.extensions_mut().insert(ConnectInfo(peer));
                let reply = router.clone().oneshot(request);
                async move {
                    let reply: Result<Response, Infallible> = reply.await;
                    drop(running);
                    reply
                }
            })
        };
        let builder = builder(&limits);
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let mut stopping = false;
        loop {
            tokio::select! {
                result = connection.as_mut() => {
                    if let Err(error) = result {
                        tracing::debug!(%error, %peer, "a connection broke");
                    }
                    return;
                }
                () = stop.cancelled(), if !stopping => {
                    stopping = true;
                    connection.as_mut().graceful_shutdown();
                }
                () = activity.idle_beyond(&limits) => {
                    tracing::debug!(%peer, "an idle connection is closed");
                    return;
                }
            }
        }
    }
}

fn builder(limits: &Limits) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_read)
        .max_buf_size(MAX_HEADER);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADER as u32)
        .keep_alive_interval(limits.idle)
        .keep_alive_timeout(limits.header_read);
    builder
}

/// Whether anything happens on a connection. hyper's own timers do not see a client that says
/// nothing at all, nor one that does not fetch its reply.
struct Activity(Mutex<State>);

struct State {
    running: usize,
    begun: bool,
    since: Instant,
}

/// A request that runs.
struct Running(Arc<Activity>);

impl Activity {
    fn new() -> Self {
        Self(Mutex::new(State {
            running: 0,
            begun: false,
            since: Instant::now(),
        }))
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(this: &Arc<Self>) -> Running {
        let mut state = this.state();
        state.running += 1;
        state.begun = true;
        drop(state);
        Running(Arc::clone(this))
    }

    /// Ends when nothing has run for as long as is allowed.
    async fn idle_beyond(&self, limits: &Limits) {
        loop {
            let (running, deadline) = {
                let state = self.state();
                let limit = if state.begun {
                    limits.idle
                } else {
                    limits.header_read
                };
                (state.running > 0, state.since + limit)
            };
            if running {
                tokio::time::sleep(limits.idle).await;
            } else if deadline <= Instant::now() {
                return;
            } else {
                tokio::time::sleep_until(deadline).await;
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.running -= 1;
        state.since = Instant::now();
    }
}
