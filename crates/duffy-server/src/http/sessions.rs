//! Sessions over HTTP. A session is given back if no client receives the reply that grants it.

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use duffy_api::{
    Action, EventResultCollection, SessionCreate, SessionResult, SessionResultCollection,
    SessionUpdate,
};
use duffy_web::SharedBytes;
use duffy_web::grant::Grant;
use tracing::{Instrument, Span};

use super::auth::Authenticated;
use super::error::ApiError;
use super::input::{HistoryOf, LastSegment, Submission, idempotency_key};
use super::lists::{List, Lists, written};
use super::openapi::{AuthErrors, InputErrors, NotFoundError, ServerErrors};
use crate::actor;
use crate::context::Ctx;
use crate::lifecycle::history::SessionHistory;
use crate::lifecycle::request::idempotency::Promise;
use crate::lifecycle::sessions::SessionChange;
use crate::lifecycle::{history, request, sessions, views};

/// Where sessions are listed and requested.
pub const PATH: &str = "/api/v1/sessions";

/// The header of a reply that an earlier request with the same key got.
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// List the running sessions.
///
/// Lists active sessions. A tenant sees its own; an administrator, and a client without
/// credentials, sees those of all tenants.
#[utoipa::path(
    get, path = "/api/v1/sessions", tag = "sessions",
    operation_id = "get_all_sessions_api_v1_sessions_get",
    responses((status = 200, description = "The active sessions", body = SessionResultCollection),
        AuthErrors, ServerErrors),
    security((), ("HTTPBasic" = [])),
)]
pub async fn list_sessions(
    State(ctx): State<Ctx>,
    Extension(lists): Extension<Lists>,
    tenant: Option<Authenticated>,
) -> Result<SharedBytes, ApiError> {
    let tenant = tenant.map(|Authenticated(tenant)| tenant);
    let only = tenant
        .filter(|tenant| !tenant.is_admin)
        .map(|tenant| tenant.id);
    let read = async {
        Ok(SessionResultCollection {
            action: Action::Get,
            sessions: views::list_sessions(&ctx, only).await?,
        })
    };
    Ok(lists.share(List::Sessions(only), written(read)).await?)
}

/// Show a session, retired ones too.
#[utoipa::path(
    get, path = "/api/v1/sessions/{id}", tag = "sessions",
    operation_id = "get_session_api_v1_sessions__id__get",
    params(("id" = i64, Path, description = "Number of the session")),
    responses((status = 200, description = "The session", body = SessionResult),
        AuthErrors, NotFoundError, InputErrors, ServerErrors),
    security(("HTTPBasic" = [])),
)]
pub async fn show_session(
    State(ctx): State<Ctx>,
    Authenticated(tenant): Authenticated,
    id: LastSegment,
) -> Result<Json<SessionResult>, ApiError> {
    let session = views::find_session(&ctx, id.id()?)
        .await?
        .ok_or(ApiError::NotFound)?;
    if !tenant.is_admin && session.tenant.id != tenant.id {
        return Err(ApiError::Forbidden);
    }
    Ok(Json(SessionResult {
        action: Action::Get,
        session,
    }))
}

/// List what happened to a session, and to its nodes while it had them.
///
/// Oldest events first. A tenant sees the events of its own sessions, without `actor` and
/// `detail`.
#[utoipa::path(
    get, path = "/api/v1/sessions/{id}/events", tag = "sessions",
    operation_id = "get_session_events_api_v1_sessions__id__events_get",
    params(
        ("id" = i64, Path, description = "Number of the session"),
        ("limit" = Option<u32>, Query, description = "Maximum number of events",
            minimum = 1, maximum = 10000, example = 1000),
        ("after" = Option<i64>, Query, minimum = 0,
            description = "Only events after the one with this number: for the next page, the last one seen"),
    ),
    responses((status = 200, description = "The events", body = EventResultCollection),
        AuthErrors, NotFoundError, InputErrors, ServerErrors),
    security(("HTTPBasic" = [])),
)]
pub async fn list_session_events(
    State(ctx): State<Ctx>,
    Extension(lists): Extension<Lists>,
    Authenticated(tenant): Authenticated,
    HistoryOf { id, page }: HistoryOf,
) -> Result<SharedBytes, ApiError> {
    let only = (!tenant.is_admin).then_some(tenant.id);
    let read = async {
        match history::list_session_events(&ctx, id, only, page).await? {
            SessionHistory::Unknown => Err(ApiError::NotFound),
            SessionHistory::OfAnother => Err(ApiError::Forbidden),
            SessionHistory::Events(events) => Ok(EventResultCollection {
                action: Action::Get,
                events,
            }),
        }
    };
    Ok(lists.make(written(read)).await?)
}

/// Request a session.
///
/// All nodes are granted or none. The reply comes when the tenant's SSH keys are on all of them.
///
/// With an `Idempotency-Key` the request can be repeated if its reply was lost. A repeated
/// request gets the reply of the first one, and waits for it while the first one runs. Only
/// granted requests are remembered, for at least 24 hours. A refused request changed nothing and
/// can be repeated with its key.
#[utoipa::path(
    post, path = "/api/v1/sessions", tag = "sessions",
    operation_id = "create_session_api_v1_sessions_post",
    request_body(content = SessionCreate, example = json!({
        "nodes_specs": [{"pool": "virtual-centos9stream-x86_64-small", "quantity": 1}]
    })),
    params(("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255,
        pattern = "^[!-~]+$", description = "Identifies the request among those of the \
        tenant: a random text, the same when the request is repeated")),
    responses((status = 201, description = "The session, its nodes deployed", body = SessionResult,
            headers(("Idempotent-Replayed" = Option<bool>,
                description = "`true` when this is the reply to an earlier request"))),
        AuthErrors, InputErrors, ServerErrors),
    security(("HTTPBasic" = [])),
)]
pub async fn create_session(
    State(ctx): State<Ctx>,
    headers: HeaderMap,
    submission: Submission<SessionCreate>,
) -> Result<Response, ApiError> {
    let (tenant, create) = submission.read()?;
    let key = idempotency_key(&headers)?;
    let session = request::request_session(&ctx, &tenant, create, key).await?;
    let keep = keep(ctx.clone(), session.promise.clone());
    let confirmation = actor::carry(keep.instrument(Span::current()));
    let tasks = ctx.tasks.clone();
    let give_back = actor::carry(retire_unreceived(ctx, session.id, session.promise));
    let grant = Grant::new(session.id, &tasks, give_back);
    let mut reply = grant.reply(StatusCode::CREATED, session.reply, confirmation);
    if session.replayed {
        let yes = HeaderValue::from_static("true");
        reply.headers_mut().insert(REPLAYED, yes);
    }
    Ok(reply)
}

/// Retires a session whose reply no client received: now, or after a while if its request has a
/// key, with which the client can ask again.
async fn retire_unreceived(ctx: Ctx, id: i64, promise: Option<Promise>) {
    let result = match promise {
        None => request::give_back(&ctx, id).await,
        Some(promise) => promise.wait_and_break(&ctx).await,
    };
    if let Err(error) = result {
        // It ends when it expires.
        tracing::error!(
            session.id = id,
            error = &error as &dyn std::error::Error,
            "cannot retire a session whose reply nobody received"
        );
    }
}

/// Records that the reply is sent. If that fails, the connection breaks off: the session will be
/// given back, so no client may learn of it.
async fn keep(ctx: Ctx, promise: Option<Promise>) -> Result<(), axum::Error> {
    let Some(promise) = promise else {
        return Ok(());
    };
    match promise.keep(&ctx).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(axum::Error::new("the session was given back")),
        Err(error) => {
            tracing::warn!(session.id = promise.session_id, %error, "cannot hand a session over");
            Err(axum::Error::new(error))
        }
    }
}

/// Extend, shorten or retire a session.
///
/// Retire it with `active: false`, or move its end to a point of time or by an offset.
#[utoipa::path(
    put, path = "/api/v1/sessions/{id}", tag = "sessions",
    operation_id = "update_session_api_v1_sessions__id__put",
    params(("id" = i64, Path, description = "Number of the session")),
    request_body(content = SessionUpdate, examples(
        ("retire" = (summary = "Retire it", value = json!({"active": false}))),
        ("extend" = (summary = "One hour more", value = json!({"expires_at": "+1h"}))),
    )),
    responses((status = 200, description = "The changed session", body = SessionResult),
        AuthErrors, NotFoundError, InputErrors, ServerErrors),
    security(("HTTPBasic" = [])),
)]
pub async fn update_session(
    State(ctx): State<Ctx>,
    id: LastSegment,
    submission: Submission<SessionChange>,
) -> Result<Json<SessionResult>, ApiError> {
    let (tenant, id, change) = submission.read_for(&id)?;
    Ok(Json(SessionResult {
        action: Action::Put,
        session: sessions::update_session(&ctx, &tenant, id, change).await?,
    }))
}
