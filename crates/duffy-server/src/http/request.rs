//! What is done around every request: its id, its place in the log, its deadline, and a reply
//! even when a handler panics.
//!
//! A request whose body is there runs in a task of the server's own. When its client hangs up, it runs to its end all
//! the same: nothing is left half done, and no wait for a database connection is broken off.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderName, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use duffy_config::TrustedProxies;
use duffy_listener::forwarded;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::TaskTracker;
use tracing::Instrument;
use uuid::Uuid;

use super::cross_site;
use super::error::ApiError;
use super::input::{Intake, LargePlace, large_place};
use crate::actor;

/// In every reply.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longest time for a request.
const DEADLINE: Duration = Duration::from_mins(1);

/// Longest time for a request that waits for nodes. What it began goes on, or is undone, by
/// itself.
const SESSION_DEADLINE: Duration = Duration::from_mins(15);

/// Most requests that run at once, those counted whose clients have gone.
const MAX_RUNNING: usize = 1024;

/// Most requests for sessions among them: these wait for nodes, and others shall not wait for them.
const MAX_SESSIONS: usize = MAX_RUNNING / 2;

/// How long a request for a session waits for one of the others to end.
const SESSION_QUEUE: Duration = Duration::from_secs(5);

/// Longest id that is taken over into the log from a request.
const MAX_GIVEN_ID: usize = 64;

/// Where requests run.
#[derive(Debug, Clone)]
pub struct Desk {
    tasks: TaskTracker,
    intake: Intake,
    proxies: TrustedProxies,
    places: Arc<Semaphore>,
    sessions: Arc<Semaphore>,
    deadline: Duration,
    session_queue: Duration,
}

impl Desk {
    /// `tasks` is waited for when the server stops.
    pub fn new(tasks: TaskTracker, proxies: TrustedProxies) -> Self {
        Self {
            tasks,
            intake: Intake::new(),
            proxies,
            places: Arc::new(Semaphore::new(MAX_RUNNING)),
            sessions: Arc::new(Semaphore::new(MAX_SESSIONS)),
            deadline: DEADLINE,
            session_queue: SESSION_QUEUE,
        }
    }
}

/// What a reply holds until there is room to send it, so that few wait for that; an extension of it.
#[derive(Debug, Clone)]
struct Places(
    #[expect(dead_code, reason = "held")] Arc<(Option<OwnedSemaphorePermit>, LargePlace)>,
);

/// Runs a request.
pub async fn handle(State(desk): State<Desk>, mut request: Request, next: Next) -> Response {
    let id = Uuid::new_v4().to_string();
    let is_for_session =
        request.method() == Method::POST && request.uri().path().ends_with("/sessions");
    let deadline = if is_for_session {
        SESSION_DEADLINE
    } else {
        desk.deadline
    };
    let client = note_client(&mut request, &desk.proxies);
    // The path without the query: clients put secrets into queries.
    let span = tracing::info_span!(
        "request",
        request_id = id,
        method = %request.method(),
        path = request.uri().path(),
        client.address = client.map(tracing::field::display),
        caller.request_id = given_id(&request),
        tenant.name = tracing::field::Empty,
    );
    let begun = Instant::now();
    if let Err(refused) = cross_site::check(&request) {
        let _in_span = span.entered();
        tracing::warn!("a request from a page of another site is refused");
        return with_id(id, refused.into_response());
    }
    let request = desk.intake.receive(request).await;
    let session_place = if is_for_session {
        let place = Arc::clone(&desk.sessions).acquire_owned();
        let Ok(place) = tokio::time::timeout(desk.session_queue, place).await else {
            let _in_span = span.entered();
            tracing::warn!("too many sessions are being requested, one is refused");
            return with_id(
                id,
                ApiError::Unavailable {
                    detail: "Too many sessions are being requested",
                    retry_after: desk.session_queue,
                }
                .into_response(),
            );
        };
        Some(place)
    } else {
        None
    };
    let place = Arc::clone(&desk.places).acquire_owned().await;
    let large_place = large_place(&request);
    let work = async move {
        let mut reply = next.run(request).await;
        tracing::info!(
            status = reply.status().as_u16(),
            duration_ms = begun.elapsed().as_millis() as u64,
            "answered"
        );
        drop(session_place);
        let places = Places(Arc::new((place.ok(), large_place)));
        reply.extensions_mut().insert(places);
        reply
    };
    let work = actor::acting(format!("request {id}").into(), work);
    let task = desk.tasks.spawn(work.instrument(span.clone()));
    let reply = match tokio::time::timeout(deadline, task).await {
        Ok(Ok(reply)) => reply,
        Ok(Err(error)) => {
            let _in_span = span.entered();
            tracing::error!(%error, "the request failed");
            ApiError::Internal.into_response()
        }
        Err(_) => {
            let _in_span = span.entered();
            tracing::error!("the request takes too long, its client is sent away");
            ApiError::Unavailable {
                detail: "The request took too long",
                retry_after: Duration::from_secs(1),
            }
            .into_response()
        }
    };
    with_id(id, reply)
}

/// Finds out who the client is when a proxy asks for it. From here on it counts as the peer.
fn note_client(request: &mut Request, proxies: &TrustedProxies) -> Option<IpAddr> {
    let ConnectInfo(peer) = *request.extensions().get::<ConnectInfo<SocketAddr>>()?;
    let client = forwarded::client(request.headers(), peer, |address| proxies.contains(address));
    request.extensions_mut().insert(ConnectInfo(client));
    Some(client.ip())
}

fn with_id(id: String, mut reply: Response) -> Response {
    if let Ok(id) = HeaderValue::try_from(id) {
        reply.headers_mut().insert(REQUEST_ID, id);
    }
    reply
}

/// The id by which a proxy before us, such as that of the old API, knows the request. It is for the
/// log alone: ours stay unique whatever clients send.
fn given_id(request: &Request) -> Option<&str> {
    let id = request.headers().get(REQUEST_ID)?.to_str().ok()?;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
    (!id.is_empty() && id.len() <= MAX_GIVEN_ID && id.bytes().all(is_plain)).then_some(id)
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::Body;
    use axum::routing::{get, post};
    use tokio::sync::Notify;
    use tower::ServiceExt;

    use super::*;

    fn served(desk: &Desk, route: axum::routing::MethodRouter) -> Router {
        Router::new()
            .route("/", route)
            .layer(axum::middleware::from_fn_with_state(desk.clone(), handle))
    }

    fn request() -> Request {
        Request::new(Body::empty())
    }

    #[tokio::test]
    async fn a_request_whose_client_hangs_up_runs_to_its_end() {
        let desk = Desk::new(TaskTracker::new(), TrustedProxies::default());
        let (finish, finished) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let router = {
            let (finish, finished) = (Arc::clone(&finish), Arc::clone(&finished));
            served(
                &desk,
                get(move || async move {
                    finish.notified().await;
                    finished.notify_one();
                }),
            )
        };
        let mut reply = Box::pin(router.oneshot(request()));
        while desk.tasks.is_empty() {
            assert!(futures::poll!(&mut reply).is_pending());
        }
        drop(reply);
        finish.notify_one();
        finished.notified().await;
        desk.tasks.close();
        desk.tasks.wait().await;
        assert_eq!(desk.places.available_permits(), MAX_RUNNING);
    }

    #[test]
    fn only_a_plain_id_gets_into_the_log() {
        let given = |id: &[u8]| {
            let mut request = request();
            let id = HeaderValue::from_bytes(id).unwrap();
            request.headers_mut().insert(REQUEST_ID, id);
            given_id(&request).map(str::to_owned)
        };
        let id = "0a1b2c3d-0000-4000-8000-00000000000f";
        assert_eq!(given(id.as_bytes()).as_deref(), Some(id));
        for odd in [&b""[..], b"a b", b"a\tb", b"a=\"b\"", b"\xff", &[b'a'; 65]] {
            assert_eq!(given(odd), None, "{odd:?}");
        }
        assert_eq!(given_id(&request()), None);
    }

    #[tokio::test]
    async fn a_page_of_another_site_changes_nothing() {
        let desk = Desk::new(TaskTracker::new(), TrustedProxies::default());
        let router = served(&desk, post(|| async { "done" }));
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
        let desk = Desk::new(TaskTracker::new(), TrustedProxies::default());
        let router = served(&desk, get(|| async { panic!("broken") as &'static str }));
        let reply = router.oneshot(request()).await.unwrap();
        assert_eq!(reply.status(), 500);
        assert!(reply.headers().contains_key(REQUEST_ID));
        let body = axum::body::to_bytes(reply.into_body(), 1000).await.unwrap();
        assert_eq!(body, r#"{"detail":"Internal Server Error"}"#);
        assert_eq!(desk.places.available_permits(), MAX_RUNNING);
    }

    #[tokio::test]
    async fn requests_for_sessions_leave_places_to_others() {
        let desk = Desk {
            session_queue: Duration::from_millis(20),
            ..Desk::new(TaskTracker::new(), TrustedProxies::default())
        };
        let finish = Arc::new(Notify::new());
        let waiting = Arc::clone(&finish);
        let router = Router::new()
            .route(
                "/sessions",
                post(move || async move { waiting.notified().await }).get(|| async { "list" }),
            )
            .layer(axum::middleware::from_fn_with_state(desk.clone(), handle));
        let ask = |method| {
            let request = Request::builder().method(method).uri("/sessions");
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
        assert_eq!(desk.sessions.available_permits(), 1);
    }

    #[tokio::test]
    async fn a_request_that_takes_too_long_is_answered_and_goes_on() {
        let desk = Desk {
            deadline: Duration::from_millis(20),
            ..Desk::new(TaskTracker::new(), TrustedProxies::default())
        };
        let finish = Arc::new(Notify::new());
        let waiting = Arc::clone(&finish);
        let router = served(&desk, get(move || async move { waiting.notified().await }));
        let reply = router.oneshot(request()).await.unwrap();
        assert_eq!(reply.status(), 503);
        assert!(reply.headers().contains_key("retry-after"));
        assert_eq!(desk.tasks.len(), 1);
        finish.notify_one();
        desk.tasks.close();
        desk.tasks.wait().await;
    }
}
