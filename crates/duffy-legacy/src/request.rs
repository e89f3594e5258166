//! What is done around every request: its id and its place in the log.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use tracing::Instrument;
use uuid::Uuid;

/// In every reply.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The id of a request. It goes with the call to the web API.
#[derive(Debug, Clone)]
pub struct RequestId(pub Arc<str>);

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
pub async fn handle(mut request: Request, next: Next) -> Response {
    let id: Arc<str> = Uuid::new_v4().to_string().into();
    // The path without the query: it has the key in it.
    let span = tracing::info_span!(
        "legacy request",
        request_id = &*id,
        method = %request.method(),
        path = request.uri().path(),
        tenant.name = tracing::field::Empty,
    );
    request.extensions_mut().insert(RequestId(Arc::clone(&id)));
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
