//! Runs each request within limits and a deadline, and answers even when a handler panics.
//!
//! When the body of a request is received, the request runs in a task of its own. If the client hangs up, the task runs to its
//! end: nothing is left half done, and no wait for a database connection is cancelled.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Extension, MatchedPath, Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use duffy_web::RequestInfo;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use super::error::ApiError;
use super::input::{BodyReceiver, LargeBodyPermit};
use super::{cross_site, sessions};
use crate::actor;

/// Longest time for a request.
const DEADLINE: Duration = Duration::from_mins(1);

/// Longest time for a request that waits for nodes. Its task goes on after that, or is undone.
const SESSION_DEADLINE: Duration = Duration::from_mins(15);

/// Most requests that run at once. Requests whose clients hung up count as well.
const MAX_RUNNING: usize = 1024;

/// Most requests for sessions among them. They wait for nodes, and other requests must not wait for them.
const MAX_SESSIONS: usize = MAX_RUNNING / 2;

/// How long a request for a session waits until another one ends.
const SESSION_QUEUE: Duration = Duration::from_secs(5);

/// Limits on the requests that run.
#[derive(Debug, Clone)]
pub struct RequestLimits {
    tasks: TaskTracker,
    bodies: BodyReceiver,
    running: Arc<Semaphore>,
    sessions: Arc<Semaphore>,
    deadline: Duration,
    session_queue: Duration,
}

impl RequestLimits {
    /// Requests run in `tasks`, which the server waits for when it stops.
    pub fn new(tasks: TaskTracker) -> Self {
        Self {
            tasks,
            bodies: BodyReceiver::new(),
            running: Arc::new(Semaphore::new(MAX_RUNNING)),
            sessions: Arc::new(Semaphore::new(MAX_SESSIONS)),
            deadline: DEADLINE,
            session_queue: SESSION_QUEUE,
        }
    }
}

/// Permits that a reply holds until there is memory to send it, which limits how many replies wait. An extension of the reply.
#[derive(Debug, Clone)]
struct Permits(
    #[expect(dead_code, reason = "held")] Arc<(Option<OwnedSemaphorePermit>, LargeBodyPermit)>,
);

/// Runs a request.
pub async fn handle(
    State(limits): State<RequestLimits>,
    Extension(info): Extension<RequestInfo>,
    request: Request,
    next: Next,
) -> Response {
    let path = request.extensions().get::<MatchedPath>();
    let is_for_session = request.method() == Method::POST
        && path.is_some_and(|path| path.as_str() == sessions::PATH);
    let deadline = if is_for_session {
        SESSION_DEADLINE
    } else {
        limits.deadline
    };
    if let Err(refused) = cross_site::check(&request) {
        tracing::warn!("a request from a page of another site is refused");
        return refused.into_response();
    }
    let (request, body_permit) = limits.bodies.receive(request).await;
    let session_permit = if is_for_session {
        let permit = Arc::clone(&limits.sessions).acquire_owned();
        let Ok(permit) = tokio::time::timeout(limits.session_queue, permit).await else {
            tracing::warn!("too many sessions are being requested, one is refused");
            let detail = "Too many sessions are being requested";
            return ApiError::Unavailable(detail, limits.session_queue).into_response();
        };
        Some(permit)
    } else {
        None
    };
    let permit = Arc::clone(&limits.running).acquire_owned().await;
    let name = format!("request {}", info.id);
    let work = async move {
        let mut reply = next.run(request).await;
        info.log_reply(&reply);
        drop(session_permit);
        let permits = Permits(Arc::new((permit.ok(), body_permit)));
        reply.extensions_mut().insert(permits);
        reply
    };
    let work = actor::acting(name.into(), work);
    let task = limits.tasks.spawn(work.in_current_span());
    match tokio::time::timeout(deadline, task).await {
        Ok(Ok(reply)) => reply,
        Ok(Err(error)) => {
            tracing::error!(%error, "the request failed");
            ApiError::Internal.into_response()
        }
        Err(_) => {
            tracing::error!("the request takes too long, its client gets an error");
            let detail = "The request took too long";
            ApiError::Unavailable(detail, Duration::from_secs(1)).into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::Body;
    use axum::routing::{get, post};
    use tokio::sync::Notify;
    use tower::ServiceExt;

    use super::*;

    const REQUEST_ID: &str = "x-request-id";

    fn served(limits: &RequestLimits, path: &str, route: axum::routing::MethodRouter) -> Router {
        let handle = axum::middleware::from_fn_with_state(limits.clone(), handle);
        let router = Router::new().route(path, route).layer(handle);
        duffy_web::identify(router, None, |_| false)
    }

    fn request() -> Request {
        Request::new(Body::empty())
    }

    #[tokio::test]
    async fn a_request_whose_client_hangs_up_runs_to_its_end() {
        let limits = RequestLimits::new(TaskTracker::new());
        let (finish, finished) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let router = {
            let (finish, finished) = (Arc::clone(&finish), Arc::clone(&finished));
            served(
                &limits,
                "/",
                get(move || async move {
                    finish.notified().await;
                    finished.notify_one();
                }),
            )
        };
        let mut reply = Box::pin(router.oneshot(request()));
        while limits.tasks.is_empty() {
            assert!(futures::poll!(&mut reply).is_pending());
        }
        drop(reply);
        finish.notify_one();
        finished.notified().await;
        limits.tasks.close();
        limits.tasks.wait().await;
        assert_eq!(limits.running.available_permits(), MAX_RUNNING);
    }

    #[tokio::test]
    async fn a_page_of_another_site_changes_nothing() {
        let limits = RequestLimits::new(TaskTracker::new());
        let router = served(&limits, "/", post(|| async { "done" }));
        let ask = |origin| {
            // A body that would have to be waited for.
            let body = Body::from_stream(futures::stream::pending::<Result<&str, axum::Error>>());
            let request = Request::post("/").header("host", "duffy");
            let request = request.header("origin", origin).body(body).unwrap();
            router.clone().oneshot(request)
        };
        let refused = ask("https://evil.example").await.unwrap();
        assert_eq!(refused.status(), 403);
        assert!(refused.headers().contains_key(REQUEST_ID));
        let body = axum::body::to_bytes(refused.into_body(), 1000).await;
        let body = String::from_utf8(body.unwrap().into()).unwrap();
        assert!(
            body.contains(r#"{"detail":"#) && body.contains("another site"),
            "{body}"
        );
        let waits = tokio::time::timeout(Duration::from_millis(20), ask("http://duffy")).await;
        assert!(waits.is_err(), "ours is refused");
    }

    #[tokio::test]
    async fn a_panic_is_an_error_like_others() {
        let limits = RequestLimits::new(TaskTracker::new());
        let router = served(
            &limits,
            "/",
            get(|| async { panic!("broken") as &'static str }),
        );
        let reply = router.oneshot(request()).await.unwrap();
        assert_eq!(reply.status(), 500);
        assert!(reply.headers().contains_key(REQUEST_ID));
        let body = axum::body::to_bytes(reply.into_body(), 1000).await.unwrap();
        assert_eq!(body, r#"{"detail":"Internal Server Error"}"#);
        assert_eq!(limits.running.available_permits(), MAX_RUNNING);
    }

    #[tokio::test]
    async fn requests_for_sessions_leave_permits_to_others() {
        let limits = RequestLimits {
            session_queue: Duration::from_millis(20),
            ..RequestLimits::new(TaskTracker::new())
        };
        let finish = Arc::new(Notify::new());
        let waiting = Arc::clone(&finish);
        let route = post(move || async move { waiting.notified().await }).get(|| async { "list" });
        let router = served(&limits, sessions::PATH, route);
        let ask = |method| {
            let request = Request::builder().method(method).uri(sessions::PATH);
            router.clone().oneshot(request.body(Body::empty()).unwrap())
        };
        let mut asked: Vec<_> = (0..MAX_SESSIONS).map(|_| Box::pin(ask("POST"))).collect();
        for reply in &mut asked {
            assert!(futures::poll!(reply).is_pending());
        }
        let refused = ask("POST").await.unwrap();
        assert_eq!(refused.status(), 503);
        assert!(refused.headers().contains_key("retry-after"));
        assert!(refused.headers().contains_key(REQUEST_ID));
        assert_eq!(ask("GET").await.unwrap().status(), 200);
        finish.notify_one();
        let (ended, _, _running) = futures::future::select_all(asked).await;
        assert_eq!(ended.unwrap().status(), 200);
        assert_eq!(limits.sessions.available_permits(), 1);
    }

    #[tokio::test]
    async fn a_request_that_takes_too_long_is_answered_and_goes_on() {
        let limits = RequestLimits {
            deadline: Duration::from_millis(20),
            ..RequestLimits::new(TaskTracker::new())
        };
        let finish = Arc::new(Notify::new());
        let waiting = Arc::clone(&finish);
        let router = served(
            &limits,
            "/",
            get(move || async move { waiting.notified().await }),
        );
        let reply = router.oneshot(request()).await.unwrap();
        assert_eq!(reply.status(), 503);
        assert!(reply.headers().contains_key("retry-after"));
        assert_eq!(limits.tasks.len(), 1);
        finish.notify_one();
        limits.tasks.close();
        limits.tasks.wait().await;
    }
}
