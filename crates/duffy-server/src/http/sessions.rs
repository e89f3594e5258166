//! Sessions over HTTP.

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::HeaderMap;
use axum::response::Response;
use duffy_api::{
    Action, EventResultCollection, SessionCreate, SessionResult, SessionResultCollection,
    SessionUpdate,
};
use duffy_web::SharedBytes;

use super::auth::Authenticated;
use super::error::ApiError;
use super::grant;
use super::input::{HistoryOf, LastSegment, Submission, idempotency_key};
use super::lists::{List, Lists, written};
use super::openapi::{AuthErrors, InputErrors, NotFoundError, ServerErrors};
use crate::context::Ctx;
use crate::lifecycle::history::SessionHistory;
use crate::lifecycle::sessions::SessionChange;
use crate::lifecycle::{history, sessions, views};

/// Where sessions are listed and requested.
pub const PATH: &str = "/api/v1/sessions";

/// List the running sessions.
///
/// Active ones: an administrator, and who doesn't authenticate, sees those of all tenants, a
/// tenant its own.
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
/// Oldest first. A tenant sees its own sessions' events, without `actor` and `detail`.
#[utoipa::path(
    get, path = "/api/v1/sessions/{id}/events", tag = "sessions",
    operation_id = "get_session_events_api_v1_sessions__id__events_get",
    params(
        ("id" = i64, Path, description = "Number of the session"),
        ("limit" = Option<u32>, Query, description = "How many events at most",
            minimum = 1, maximum = 10000, example = 1000),
        ("after" = Option<i64>, Query, minimum = 0,
            description = "Only later ones than the event of this number: for the next page, that of the last one seen"),
    ),
    responses((status = 200, description = "The events", body = EventResultCollection),
        AuthErrors, NotFoundError, InputErrors, ServerErrors),
    security(("HTTPBasic" = [])),
)]
pub async fn list_session_events(
    State(ctx): State<Ctx>,
    Extension(lists): Extension<Lists>,
    Authenticated(tenant): Authenticated,
    of: HistoryOf,
) -> Result<SharedBytes, ApiError> {
    let (id, page) = of.read()?;
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
/// With an `Idempotency-Key` the request can be repeated when its reply was lost: it gets the
/// first one's reply, also while that one still runs. Only what was granted is remembered, for 24
/// hours at least: what was refused changed nothing, and may be asked for again with its key.
#[utoipa::path(
    post, path = "/api/v1/sessions", tag = "sessions",
    operation_id = "create_session_api_v1_sessions_post",
    request_body(content = SessionCreate, example = json!({
        "nodes_specs": [{"pool": "virtual-centos9stream-x86_64-small", "quantity": 1}]
    })),
    params(("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255,
        pattern = "^[!-~]+$", description = "What tells this request from others of the tenant: \
        drawn at random, and the same when the request is repeated")),
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
    grant::request_session(ctx, tenant, create, key).await
}

/// Extend, shorten or retire a session.
///
/// Retire it with `active: false`, or move its end: to a point of time, or by an offset.
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
