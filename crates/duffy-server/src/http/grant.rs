//! A session that was granted but whose reply has not gone out.
//!
//! A request runs to its end when its client has gone. Then somebody has to give the nodes back,
//! for nobody knows of the session.

use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};

use axum::Json;
use axum::body::Body;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use duffy_api::{Action, Session, SessionCreate, SessionResult};
use hyper::body::{Frame, SizeHint};
use tokio::runtime::Handle;
use tracing::{Instrument, Span};

use super::error::ApiError;
use crate::actor;
use crate::context::Ctx;
use crate::db::tenants::TenantRow;
use crate::lifecycle::sessions::{self, SessionChange, SessionError};

/// Requests a session. Its reply, when nobody fetches it, retires the session again.
pub async fn request_session(
    ctx: Ctx,
    tenant: TenantRow,
    create: SessionCreate,
) -> Result<Response, ApiError> {
    let session = sessions::request_session(&ctx, &tenant, create).await?;
    let (runtime, span, actor) = (Handle::current(), Span::current(), actor::current());
    let id = session.id;
    let give_back = move || {
        let tasks = ctx.tasks.clone();
        let retire = actor::acting(actor, retire(ctx, tenant, id));
        tasks.spawn_on(retire.instrument(span), &runtime);
    };
    Ok(Granted::new(session, give_back).into_response())
}

async fn retire(ctx: Ctx, tenant: TenantRow, id: i64) {
    let change = SessionChange {
        active: Some(false),
        expires_at: None,
    };
    match sessions::update_session(&ctx, &tenant, id, change).await {
        Ok(_) | Err(SessionError::Retired { .. }) => {}
        // Then it ends when it expires.
        Err(error) => tracing::error!(
            session.id = id,
            error = &error as &dyn std::error::Error,
            "cannot retire a session that nobody took"
        ),
    }
}

/// A session whose nodes are given back unless its reply goes out.
struct Granted {
    session: Session,
    give_back: Option<Box<dyn FnOnce() + Send>>,
}

impl Granted {
    fn new(session: Session, give_back: impl FnOnce() + Send + 'static) -> Self {
        Self {
            session,
            give_back: Some(Box::new(give_back)),
        }
    }
}

impl IntoResponse for Granted {
    fn into_response(self) -> Response {
        let reply = SessionResult {
            action: Action::Post,
            session: self.session.clone(),
        };
        let reply = (StatusCode::CREATED, Json(reply)).into_response();
        reply.map(|body| {
            Body::new(GrantedBody {
                body,
                granted: self,
            })
        })
    }
}

impl Drop for Granted {
    fn drop(&mut self) {
        if let Some(give_back) = self.give_back.take() {
            tracing::warn!(
                session.id = self.session.id,
                "nobody took the session, retiring it"
            );
            give_back();
        }
    }
}

/// The reply's body; with its first part fetched by the connection, the session counts as taken.
struct GrantedBody {
    body: Body,
    granted: Granted,
}

impl hyper::body::Body for GrantedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if polled.is_ready() {
            self.granted.give_back = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use serde_json::json;

    use super::*;

    fn session() -> Session {
        let tenant = json!({
            "retired_at": null, "active": true, "created_at": "2026-11-22T00:00:00Z",
            "name": "tenant", "is_admin": false, "ssh_key": "**********", "node_quota": null,
            "session_lifetime": null, "session_lifetime_max": null, "id": 2,
            "effective_node_quota": 10, "effective_session_lifetime": 21600.0,
            "effective_session_lifetime_max": 43200.0,
        });
        serde_json::from_value(json!({
            "retired_at": null, "active": true, "created_at": "2026-11-22T00:00:00Z", "id": 7,
            "expires_at": null, "tenant": tenant, "data": {}, "nodes": [],
        }))
        .unwrap()
    }

    /// The reply of a session that notes when it is given back.
    fn reply() -> (Response, Arc<AtomicBool>) {
        let given_back = Arc::new(AtomicBool::new(false));
        let note = Arc::clone(&given_back);
        let granted = Granted::new(session(), move || note.store(true, Ordering::SeqCst));
        (granted.into_response(), given_back)
    }

    #[tokio::test]
    async fn a_fetched_reply_keeps_the_session() {
        let (reply, given_back) = reply();
        assert_eq!(reply.status(), 201);
        assert!(hyper::body::Body::size_hint(reply.body()).exact().is_some());
        let body = axum::body::to_bytes(reply.into_body(), 10_000)
            .await
            .unwrap();
        assert!(
            body.starts_with(br#"{"action":"post","session":{"#),
            "{body:?}"
        );
        assert!(!given_back.load(Ordering::SeqCst));
    }

    #[tokio::test]
    async fn a_reply_that_nobody_fetches_gives_the_session_back() {
        let (reply, given_back) = reply();
        drop(reply);
        assert!(given_back.load(Ordering::SeqCst));
    }

    /// How a reply ends whose client hung up: in a task that nobody waits for any more.
    #[tokio::test]
    async fn a_reply_that_comes_too_late_gives_the_session_back() {
        let (reply, given_back) = reply();
        let tasks = tokio_util::task::TaskTracker::new();
        let client = tasks.spawn(async { reply });
        tasks.close();
        tasks.wait().await;
        assert!(!given_back.load(Ordering::SeqCst));
        drop(client);
        assert!(given_back.load(Ordering::SeqCst));
    }
}
