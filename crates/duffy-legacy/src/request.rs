//! Logs how each request ends.

use axum::extract::{Extension, Request};
use axum::middleware::Next;
use axum::response::Response;
use duffy_web::RequestInfo;

/// Logs that the client hung up, unless the request is taken out before.
struct HangUpLog(Option<RequestInfo>);

impl Drop for HangUpLog {
    fn drop(&mut self) {
        if let Some(info) = &self.0 {
            let duration_ms = info.duration_ms();
            tracing::info!(duration_ms, "the client hung up");
        }
    }
}

/// Runs a request.
pub async fn handle(
    Extension(info): Extension<RequestInfo>,
    request: Request,
    next: Next,
) -> Response {
    let mut log = HangUpLog(Some(info));
    let reply = next.run(request).await;
    if let Some(info) = log.0.take() {
        info.log_reply(&reply);
    }
    reply
}
