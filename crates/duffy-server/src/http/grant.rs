//! A session that was granted but whose reply has not gone out.
//!
//! A request runs to its end when its client has gone. Then somebody has to give the nodes back,
//! for nobody knows of the session.

use std::pin::Pin;
use std::task::{Context as TaskContext, Poll, ready};

use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use duffy_api::SessionCreate;
use hyper::body::{Frame, SizeHint};
use tokio::runtime::Handle;
use tracing::{Instrument, Span};

use super::error::ApiError;
use crate::actor;
use crate::context::Ctx;
use crate::db::tenants::TenantRow;
use crate::lifecycle::sessions::{self, Promise};

/// In a reply to a request that was answered before.
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// Requests a session. Its reply, when nobody fetches it, retires the session again: at once, or
/// a while later when the request has a `key` by which the client can come back for it.
pub async fn request_session(
    ctx: Ctx,
    tenant: TenantRow,
    create: SessionCreate,
    key: Option<String>,
) -> Result<Response, ApiError> {
    let session = sessions::request_session(&ctx, &tenant, create, key).await?;
    let (runtime, span, actor) = (Handle::current(), Span::current(), actor::current());
    let (id, promise) = (session.id, session.promise.clone());
    let before = promise.clone().map(|promise| {
        let keep = keep(ctx.clone(), promise).instrument(span.clone());
        Box::pin(actor::acting(actor.clone(), keep)) as Before
    });
    let give_back = move || {
        let tasks = ctx.tasks.clone();
        let retire = actor::acting(actor, async move {
            match promise {
                None => retire(ctx, id).await,
                Some(promise) => wait_and_retire(ctx, promise).await,
            }
        });
        tasks.spawn_on(retire.instrument(span), &runtime);
    };
    let granted = Granted {
        session: id,
        give_back: Some(Box::new(give_back)),
    };
    let mut reply = granted.reply(session.reply.into(), before);
    if session.replayed {
        let yes = HeaderValue::from_static("true");
        reply.headers_mut().insert(REPLAYED, yes);
    }
    Ok(reply)
}

async fn retire(ctx: Ctx, id: i64) {
    if let Err(error) = sessions::give_back(&ctx, id).await {
        // Then it ends when it expires.
        tracing::error!(
            session.id = id,
            error = &error as &dyn std::error::Error,
            "cannot retire a session that nobody took"
        );
    }
}

async fn wait_and_retire(ctx: Ctx, promise: Promise) {
    if let Err(error) = promise.wait_and_break(&ctx).await {
        // Then it ends when it expires.
        tracing::error!(
            session.id = promise.session_id,
            error = &error as &dyn std::error::Error,
            "cannot retire a session that nobody came back for"
        );
    }
}

/// Writes down that the reply goes out. If that fails the connection is broken off instead: what
/// is not written down is given back some time, and nobody may hold it then.
async fn keep(ctx: Ctx, promise: Promise) -> Result<(), axum::Error> {
    match promise.keep(&ctx).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(axum::Error::new("the session was given back")),
        Err(error) => {
            tracing::warn!(session.id = promise.session_id, %error, "cannot hand a session over");
            Err(axum::Error::new(error))
        }
    }
}

/// What is to be done before a reply goes out.
type Before = Pin<Box<dyn Future<Output = Result<(), axum::Error>> + Send>>;

/// A session whose nodes are given back unless its reply goes out.
struct Granted {
    session: i64,
    give_back: Option<Box<dyn FnOnce() + Send>>,
}

impl Granted {
    fn reply(self, json: Bytes, before: Option<Before>) -> Response {
        let body = Body::new(GrantedBody {
            body: Body::from(json),
            before,
            granted: self,
        });
        let json = HeaderValue::from_static("application/json");
        (StatusCode::CREATED, [(CONTENT_TYPE, json)], body).into_response()
    }
}

impl Drop for Granted {
    fn drop(&mut self) {
        if let Some(give_back) = self.give_back.take() {
            tracing::warn!(
                session.id = self.session,
                "nobody took the session, it is given back"
            );
            give_back();
        }
    }
}

/// The reply's body; with its first part fetched by the connection, the session counts as taken.
struct GrantedBody {
    body: Body,
    before: Option<Before>,
    granted: Granted,
}

impl hyper::body::Body for GrantedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Some(before) = &mut self.before {
            let done = ready!(before.as_mut().poll(cx));
            self.before = None;
            if let Err(error) = done {
                return Poll::Ready(Some(Err(error)));
            }
        }
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

    use super::*;

    /// The reply of a session that notes when it is given back.
    fn reply_after(before: Option<Before>) -> (Response, Arc<AtomicBool>) {
        let given_back = Arc::new(AtomicBool::new(false));
        let note = Arc::clone(&given_back);
        let granted = Granted {
            session: 7,
            give_back: Some(Box::new(move || note.store(true, Ordering::SeqCst))),
        };
        (granted.reply(Bytes::from_static(b"{}"), before), given_back)
    }

    fn reply() -> (Response, Arc<AtomicBool>) {
        reply_after(None)
    }

    #[tokio::test]
    async fn a_fetched_reply_keeps_the_session() {
        let (reply, given_back) = reply();
        assert_eq!(reply.status(), 201);
        assert_eq!(reply.headers()[CONTENT_TYPE], "application/json");
        assert!(hyper::body::Body::size_hint(reply.body()).exact().is_some());
        let body = axum::body::to_bytes(reply.into_body(), 10_000)
            .await
            .unwrap();
        assert_eq!(body, "{}");
        assert!(!given_back.load(Ordering::SeqCst));
    }

    #[tokio::test]
    async fn a_reply_that_cannot_be_noted_does_not_go_out() {
        let noted = Box::pin(async {
            tokio::task::yield_now().await;
            Ok(())
        });
        let (reply, given_back) = reply_after(Some(noted));
        let body = axum::body::to_bytes(reply.into_body(), 10_000).await;
        assert_eq!(body.unwrap(), "{}");
        assert!(!given_back.load(Ordering::SeqCst));

        let failed = Box::pin(async { Err(axum::Error::new("no database")) });
        let (reply, given_back) = reply_after(Some(failed));
        let body = axum::body::to_bytes(reply.into_body(), 10_000).await;
        assert!(body.is_err());
        assert!(given_back.load(Ordering::SeqCst));
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
