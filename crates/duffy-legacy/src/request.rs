//! What is done around every request: its id, its client's address and its place in the log.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use duffy_listener::{Peer, forwarded};
use tracing::Instrument;
use uuid::Uuid;

use crate::Legacy;

/// In every reply.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What the web API is told of a request.
#[derive(Debug, Clone)]
pub struct RequestInfo {
    /// Its id.
    pub id: Arc<str>,
    /// The address of its client.
    pub client: Option<IpAddr>,
}

/// Notes when a request ends without a reply.
struct Unanswered {
    begun: Instant,
    answered: bool,
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        if !self.answered {
            let duration_ms = self.begun.elapsed().as_millis() as u64;
            tracing::info!(duration_ms, "the client hung up");
        }
    }
}

/// Runs a request.
pub async fn handle(
    State(legacy): State<Arc<Legacy>>,
    mut request: Request,
    next: Next,
) -> Response {
    let id: Arc<str> = Uuid::new_v4().to_string().into();
    let proxies = &legacy.settings.trusted_proxies;
    let client = request.extensions().get().map(|Peer(peer)| {
        forwarded::client(request.headers(), *peer, |address| {
            proxies.contains(address)
        })
        .ip()
    });
    // The path without the query: it has the key in it.
    let span = tracing::info_span!(
        "legacy request",
        request_id = &*id,
        method = %request.method(),
        path = request.uri().path(),
        client.address = client.map(tracing::field::display),
        tenant.name = tracing::field::Empty,
    );
    request.extensions_mut().insert(RequestInfo {
        id: Arc::clone(&id),
        client,
    });
    let work = async {
        let mut state = Unanswered {
            begun: Instant::now(),
            answered: false,
        };
        let reply = next.run(request).await;
        state.answered = true;
        tracing::info!(
            status = reply.status().as_u16(),
            duration_ms = state.begun.elapsed().as_millis() as u64,
            "answered"
        );
        reply
    };
    let mut reply = work.instrument(span).await;
    if let Ok(id) = HeaderValue::from_str(&id) {
        reply.headers_mut().insert(REQUEST_ID, id);
    }
    reply
}
