//! Gives each request an id and a span in the log, and finds out which client sent it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{ConnectInfo, Request};
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::{self, Next};
use axum::response::Response;
use tracing::Instrument;
use uuid::Uuid;

use crate::forwarded;

/// In every reply.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longest id of a caller that is logged.
const MAX_CALLER_ID: usize = 64;

/// What is known of a request. An extension of it.
#[derive(Debug, Clone)]
pub struct RequestInfo {
    /// Its id. The reply has it as well.
    pub id: Arc<str>,
    /// The address of its client. If a trusted proxy forwarded the request, that is not the peer of the connection.
    pub client: Option<IpAddr>,
    received: Instant,
}

impl RequestInfo {
    /// Milliseconds since the request's header was received.
    pub fn duration_ms(&self) -> u64 {
        self.received.elapsed().as_millis() as u64
    }

    /// Logs that the request is answered.
    pub fn log_reply(&self, reply: &Response) {
        let (status, duration_ms) = (reply.status().as_u16(), self.duration_ms());
        tracing::info!(status, duration_ms, "answered");
    }
}

/// Runs each request of the router in a span, with a [`RequestInfo`] as an extension. `api` is shown in the span.
pub fn identify(
    router: Router,
    api: Option<&'static str>,
    is_trusted: impl Fn(IpAddr) -> bool + Clone + Send + Sync + 'static,
) -> Router {
    router.layer(middleware::from_fn(move |request, next| {
        handle(api, is_trusted.clone(), request, next)
    }))
}

async fn handle(
    api: Option<&'static str>,
    is_trusted: impl Fn(IpAddr) -> bool,
    mut request: Request,
    next: Next,
) -> Response {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
    let info = RequestInfo {
        id: Uuid::new_v4().to_string().into(),
        client: peer
            .map(|ConnectInfo(peer)| forwarded::client(request.headers(), peer.ip(), is_trusted)),
        received: Instant::now(),
    };
    // The path without the query: a query may contain secrets.
    let span = tracing::info_span!(
        "request",
        request_id = &*info.id,
        api,
        method = %request.method(),
        path = request.uri().path(),
        client.address = info.client.map(tracing::field::display),
        caller.request_id = caller_id(&request),
        tenant.name = tracing::field::Empty,
    );
    request.extensions_mut().insert(info.clone());
    let mut reply = next.run(request).instrument(span).await;
    if let Ok(id) = HeaderValue::from_str(&info.id) {
        reply.headers_mut().insert(REQUEST_ID, id);
    }
    reply
}

/// The id that a proxy or the caller gave the request. It is only logged: ids in replies are unique, whatever clients send.
fn caller_id(request: &Request) -> Option<&str> {
    let id = request.headers().get(REQUEST_ID)?.to_str().ok()?;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
    (!id.is_empty() && id.len() <= MAX_CALLER_ID && id.bytes().all(is_plain)).then_some(id)
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    #[test]
    fn only_a_plain_id_gets_into_the_log() {
        let logged = |id: &[u8]| {
            let mut request = Request::new(Body::empty());
            let id = HeaderValue::from_bytes(id).unwrap();
            request.headers_mut().insert(REQUEST_ID, id);
            caller_id(&request).map(str::to_owned)
        };
        let id = "0a1b2c3d-0000-4000-8000-00000000000f";
        assert_eq!(logged(id.as_bytes()).as_deref(), Some(id));
        for odd in [&b""[..], b"a b", b"a\tb", b"a=\"b\"", b"\xff", &[b'a'; 65]] {
            assert_eq!(logged(odd), None, "{odd:?}");
        }
        assert_eq!(caller_id(&Request::new(Body::empty())), None);
    }
}
