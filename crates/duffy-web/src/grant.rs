//! A granted session, and the reply that has it.
//!
//! If the client hangs up before the connection sends the reply, nobody knows of the session. Then the API gives it back.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, Span};

/// A session that is given back when this is dropped, or the reply with it, unless the connection has taken the reply.
pub struct Grant {
    session: i64,
    give_back: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    tasks: TaskTracker,
    runtime: Handle,
    span: Span,
}

impl Grant {
    /// Runs `give_back` in `tasks`, in the current span, when the session is to be given back.
    ///
    /// # Panics
    /// When it is called outside a runtime.
    pub fn new(
        session: i64,
        tasks: &TaskTracker,
        give_back: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        Self {
            session,
            give_back: Some(Box::pin(give_back)),
            tasks: tasks.clone(),
            runtime: Handle::current(),
            span: Span::current(),
        }
    }

    /// Makes the reply. The connection breaks off if the confirmation fails, which precedes the body.
    pub fn reply(
        self,
        status: StatusCode,
        json: impl Into<Bytes>,
        confirmation: impl Future<Output = Result<(), axum::Error>> + Send + 'static,
    ) -> Response {
        let body = Body::new(GrantBody {
            json: Some(json.into()),
            confirmation: Box::pin(confirmation),
            grant: self,
        });
        let json = HeaderValue::from_static("application/json");
        (status, [(CONTENT_TYPE, json)], body).into_response()
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        if let Some(give_back) = self.give_back.take() {
            let _in_span = self.span.enter();
            tracing::warn!(
                session.id = self.session,
                "nobody took the session, it is given back"
            );
            let give_back = give_back.instrument(self.span.clone());
            self.tasks.spawn_on(give_back, &self.runtime);
        }
    }
}

/// The body of the reply.
struct GrantBody {
    json: Option<Bytes>,
    confirmation: Pin<Box<dyn Future<Output = Result<(), axum::Error>> + Send>>,
    grant: Grant,
}

impl hyper::body::Body for GrantBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.json.is_none() {
            return Poll::Ready(None);
        }
        let confirmed = ready!(self.confirmation.as_mut().poll(cx));
        let json = self.json.take();
        confirmed?;
        // The connection has the reply.
        self.grant.give_back = None;
        Poll::Ready(json.map(|json| Ok(Frame::data(json))))
    }

    fn is_end_stream(&self) -> bool {
        self.json.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.json.as_ref().map_or(0, Bytes::len) as u64)
    }
}

#[cfg(test)]
mod tests {
    use std::future::ready;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    /// A session that records when it is given back.
    #[derive(Default)]
    struct Session {
        tasks: TaskTracker,
        returned: Arc<AtomicBool>,
    }

    impl Session {
        fn reply(
            &self,
            confirmation: impl Future<Output = Result<(), axum::Error>> + Send + 'static,
        ) -> Response {
            let returned = Arc::clone(&self.returned);
            let give_back = async move { returned.store(true, Ordering::SeqCst) };
            let grant = Grant::new(7, &self.tasks, give_back);
            grant.reply(StatusCode::CREATED, "{}", confirmation)
        }

        async fn is_returned(&self) -> bool {
            self.tasks.close();
            self.tasks.wait().await;
            self.returned.load(Ordering::SeqCst)
        }
    }

    async fn fetch(reply: Response) -> Result<Bytes, axum::Error> {
        axum::body::to_bytes(reply.into_body(), 10_000).await
    }

    #[tokio::test]
    async fn a_reply_that_is_sent_keeps_the_session() {
        let session = Session::default();
        let reply = session.reply(ready(Ok(())));
        assert_eq!(reply.status(), 201);
        assert_eq!(reply.headers()[CONTENT_TYPE], "application/json");
        assert_eq!(hyper::body::Body::size_hint(reply.body()).exact(), Some(2));
        assert_eq!(fetch(reply).await.unwrap(), "{}");
        assert!(!session.is_returned().await);
    }

    #[tokio::test]
    async fn a_reply_that_is_not_confirmed_is_not_sent() {
        let session = Session::default();
        let reply = session.reply(async {
            tokio::task::yield_now().await;
            Ok(())
        });
        assert_eq!(fetch(reply).await.unwrap(), "{}");
        assert!(!session.is_returned().await);

        let failed = ready(Err(axum::Error::new("no database")));
        assert!(fetch(session.reply(failed)).await.is_err());
        assert!(session.is_returned().await);
    }

    #[tokio::test]
    async fn a_reply_that_is_not_sent_gives_the_session_back() {
        let session = Session::default();
        drop(session.reply(ready(Ok(()))));
        assert!(session.is_returned().await);
    }

    /// The client hung up, and no connection waits for the task that makes the reply.
    #[tokio::test]
    async fn a_reply_that_comes_too_late_gives_the_session_back() {
        let session = Session::default();
        let reply = session.reply(ready(Ok(())));
        let tasks = TaskTracker::new();
        let client = tasks.spawn(async { reply });
        tasks.close();
        tasks.wait().await;
        assert!(!session.returned.load(Ordering::SeqCst));
        drop(client);
        assert!(session.is_returned().await);
    }
}
