//! Logs how each request ends.

use axum::extract::{Extension, Request};
use axum::middleware::Next;
use axum::response::Response;
use duffy_web::RequestInfo;

/// Logs it when a request ends without a reply.
struct ReplyLog {
    info: RequestInfo,
    answered: bool,
}

impl Drop for ReplyLog {
    fn drop(&mut self) {
        if !self.answered {
            let duration_ms = self.info.duration_ms();
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
    let mut log = ReplyLog {
        info,
        answered: false,
    };
    let reply = next.run(request).await;
    log.answered = true;
    log.info.log_reply(&reply);
    reply
}
