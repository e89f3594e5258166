//! Serves one connection.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use axum::extract::ConnectInfo;
use hyper::body::Incoming;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::TcpStream;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::activity::RunningRequest;
use crate::connection_limit::ConnectionPermit;
use crate::limits::Limits;
use crate::lingering_close;
use crate::reply_body::{CHUNK, ReplyBody};
use crate::request_body::RequestBody;
use crate::stream_executor::StreamExecutor;
use crate::unsent_replies::UnsentReplies;

/// Most bytes of a request's header, and of the read buffer.
const MAX_HEADER: usize = 64 * 1024;

/// Most bytes of a header in HTTP/2, where many requests share a connection.
const MAX_STREAM_HEADER: u32 = 16 * 1024;

/// Most concurrent requests on one HTTP/2 connection.
const MAX_STREAMS: u32 = 32;

/// Most bytes of request bodies on one HTTP/2 connection that the server has not read.
const WINDOW: u32 = 64 * 1024;

/// Most bytes of a reply that HTTP/2 buffers.
const MAX_SEND_BUFFER: usize = 4 * CHUNK;

/// A connection to serve.
pub struct Connection {
    pub router: Router,
    pub peer: SocketAddr,
    pub limits: Limits,
    pub stop: CancellationToken,
    pub permit: ConnectionPermit,
    pub unsent: Arc<UnsentReplies>,
}

impl Connection {
    /// Serves the connection until it is closed.
    pub async fn run(self, stream: TcpStream) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
        // hyper takes ownership of what it is given and drops it. Here that is the guard, and the stream survives.
        let stream = Arc::new(Mutex::new(stream));
        let guard = Arc::clone(&stream).lock_owned().await;
        if self.serve_requests(guard).await
            && let Ok(mut stream) = stream.try_lock()
        {
            tokio::select! {
                () = lingering_close::close(&mut stream) => {}
                () = self.permit.activity.must_close() => {}
            }
        }
    }

    /// Serves requests until the connection ends. Returns whether the client may still be sending. In that
    /// case the client loses the last reply if the stream is closed at once.
    async fn serve_requests(&self, stream: OwnedMutexGuard<TcpStream>) -> bool {
        let activity = &self.permit.activity;
        let service = hyper::service::service_fn(|request| self.answer(request));
        let builder = builder(&self.limits);
        let connection = builder.serve_connection(TokioIo::new(Pin::new(stream)), service);
        let mut connection = std::pin::pin!(connection);
        let mut stopping = false;
        loop {
            tokio::select! {
                result = connection.as_mut() => {
                    if let Err(error) = &result {
                        tracing::debug!(%error, peer = %self.peer, "a connection failed");
                    }
                    return result.is_err() || activity.has_unread();
                }
                () = self.stop.cancelled(), if !stopping => {
                    stopping = true;
                    connection.as_mut().graceful_shutdown();
                }
                () = activity.idle_beyond(&self.limits) => {
                    tracing::debug!(peer = %self.peer, "an idle connection is closed");
                    return false;
                }
                () = activity.must_close() => return false,
            }
        }
    }

    fn answer(
        &self,
        request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response<ReplyBody>, Infallible>> + Send + use<> {
        let activity = Arc::clone(&self.permit.activity);
        let unsent = Arc::clone(&self.unsent);
        let mut request = request.map(|body| RequestBody::new(body, &activity));
        request.extensions_mut().insert(ConnectInfo(self.peer));
        let router = self.router.clone();
        // HTTP/1 polls this only when the previous reply is sent. The request counts as running from then on.
        async move {
            let running = RunningRequest::begin(&activity);
            let mut reply = router.oneshot(request).await?;
            let permit = unsent.admit(&mut reply, running).await;
            Ok(reply.map(|body| ReplyBody::new(body, permit)))
        }
    }
}

fn builder(limits: &Limits) -> auto::Builder<StreamExecutor> {
    let mut builder = auto::Builder::new(StreamExecutor);
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
        .max_send_buf_size(MAX_SEND_BUFFER)
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
