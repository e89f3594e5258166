//! One connection, from its first byte to its last.

use std::convert::Infallible;
use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use hyper::body::{Body, Incoming};
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tower::{Service, ServiceExt};

use crate::activity::{Activity, Running};
use crate::body::RequestBody;
use crate::linger::{self, Lent};
use crate::outgoing::Outgoing;
use crate::reply::{PIECE, ReplyBody};
use crate::room::Place;
use crate::streams::Streams;
use crate::{Limits, Peer};

/// Most bytes of a request's header, and of what is read ahead.
const MAX_HEADER: usize = 64 * 1024;

/// Most bytes of a header in HTTP/2, where many requests share a connection.
const MAX_STREAM_HEADER: u32 = 16 * 1024;

/// Most requests at once on one HTTP/2 connection.
const MAX_STREAMS: u32 = 32;

/// Most bytes that a client may send ahead on one HTTP/2 connection.
const WINDOW: u32 = 64 * 1024;

/// Most bytes of a reply that HTTP/2 takes over before they can be sent.
const MAX_AHEAD: usize = 4 * PIECE;

/// A connection to serve.
pub struct Connection<S> {
    pub service: S,
    pub peer: SocketAddr,
    pub limits: Limits,
    pub stop: CancellationToken,
    pub place: Place,
    pub outgoing: Arc<Outgoing>,
}

/// How a connection ended.
#[derive(PartialEq, Eq)]
enum End {
    /// The server wants no more of it.
    Abandoned,
    /// All that was to be said is said; the client may go on talking.
    Said,
}

impl<S, B> Connection<S>
where
    S: Service<Request<RequestBody>, Response = Response<B>, Error = Infallible>,
    S: Clone + Send + Sync + 'static,
    S::Future: Send,
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    /// Serves it.
    pub async fn run(self, stream: TcpStream) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot send small replies at once");
        }
        let (stream, returned) = Lent::new(stream);
        let activity = Arc::clone(&self.place.activity);
        if self.talk(stream).await == End::Said {
            tokio::select! {
                () = linger::close(&returned) => {}
                () = activity.must_close() => {}
            }
        }
    }

    async fn talk(&self, stream: Lent) -> End {
        let activity = &self.place.activity;
        let service = hyper::service::service_fn(|request| self.answer(activity, request));
        let builder = builder(&self.limits);
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let mut stopping = false;
        loop {
            tokio::select! {
                result = connection.as_mut() => {
                    return match result {
                        Err(error) => {
                            tracing::debug!(%error, peer = %self.peer, "a connection broke");
                            End::Said
                        }
                        Ok(()) if activity.has_unread() => End::Said,
                        Ok(()) => End::Abandoned,
                    };
                }
                () = self.stop.cancelled(), if !stopping => {
                    stopping = true;
                    connection.as_mut().graceful_shutdown();
                }
                () = activity.idle_beyond(&self.limits) => {
                    tracing::debug!(peer = %self.peer, "an idle connection is closed");
                    return End::Abandoned;
                }
                () = activity.must_close() => return End::Abandoned,
            }
        }
    }

    fn answer(
        &self,
        activity: &Arc<Activity>,
        request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response<ReplyBody<B>>, Infallible>> + Send + use<S, B> {
        let activity = Arc::clone(activity);
        let outgoing = Arc::clone(&self.outgoing);
        let mut request = request.map(|body| RequestBody::new(body, &activity));
        request.extensions_mut().insert(Peer(self.peer));
        let service = self.service.clone();
        // Not before this is polled: in HTTP/1 that waits until the reply before is sent.
        async move {
            let running = Running::begin(&activity);
            let reply = service.oneshot(request).await?;
            Ok(Outgoing::admit(&outgoing, reply, running).await)
        }
    }
}

fn builder(limits: &Limits) -> auto::Builder<Streams> {
    let mut builder = auto::Builder::new(Streams);
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_read)
        .max_buf_size(MAX_HEADER);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_STREAM_HEADER)
        .max_send_buf_size(MAX_AHEAD)
        .initial_connection_window_size(WINDOW)
        .initial_stream_window_size(WINDOW)
        .keep_alive_interval(limits.idle)
        .keep_alive_timeout(limits.header_read);
    if limits.http2 {
        builder
    } else {
        builder.http1_only()
    }
}
