//! The endpoints of the old API.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use duffy_api::{NodesSpec, SessionUpdate};
use duffy_client::ClientError;
use duffy_config::PoolRequest;
use duffy_web::RequestInfo;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use crate::query::{Count, Query, find, parse_count, parse_session};
use crate::reply::{Failed, Refused, denied, done, incomplete, no_number};
use crate::upstream::{CallError, Caller, Kind};
use crate::{Legacy, grant};

/// How much longer a session lasts whose job has failed, for somebody to look at it.
const LONGER: &str = "+6h";

/// `/Node/get`: a session with nodes of one pool.
pub async fn get_nodes(
    State(legacy): State<Arc<Legacy>>,
    Extension(info): Extension<RequestInfo>,
    query: Query,
) -> Result<Response, Response> {
    let caller = tenant(&legacy, &query, &info)?;
    let count = match find(&query, "count") {
        Some(text) => parse_count(text).ok_or_else(|| no_number(text))?,
        None => Count::Nodes(1),
    };
    let request = PoolRequest {
        ver: Some(find(&query, "ver").unwrap_or("7")),
        arch: Some(find(&query, "arch").unwrap_or("x86_64")),
        flavor: find(&query, "flavor"),
    };
    let pool = match legacy.settings.pool_for(&request) {
        Ok(Some(pool)) => pool,
        Ok(None) => {
            tracing::info!(?request, "no pool is mapped to this");
            return Err(Failed::Allocate.into_response());
        }
        Err(error) => {
            tracing::error!(?request, %error, "the pool's template fails");
            return Err(Failed::Allocate.into_response());
        }
    };
    let Count::Nodes(quantity) = count else {
        tracing::info!("no number of nodes");
        return Err(Failed::Allocate.into_response());
    };
    let spec = NodesSpec { quantity, pool };
    let granted = {
        let (legacy, caller) = (Arc::clone(&legacy), caller.clone());
        move |reply: &duffy_client::Reply| {
            let granted = grant::reply(&legacy, caller, reply.json())?;
            (reply.status() == 201).then_some(granted)
        }
    };
    let asked = legacy
        .upstream
        .call(
            Kind::Grant,
            &caller,
            move |client| {
                let key = duffy_client::new_key();
                let ask = |_| client.request_session(std::slice::from_ref(&spec), Some(&key));
                duffy_client::repeat(ask, |error, pause| {
                    tracing::warn!(%error, "the answer was lost, asking again in {} s", pause.as_secs());
                })
            },
            granted,
        )
        .await;
    asked.map_err(|_| Failed::Allocate.into_response())
}

/// `/Node/done`: the session is over.
pub async fn return_nodes(
    State(legacy): State<Arc<Legacy>>,
    Extension(info): Extension<RequestInfo>,
    query: Query,
) -> Result<Response, Response> {
    let update = SessionUpdate {
        active: Some(false),
        expires_at: None,
    };
    update_session(&legacy, &info, &query, update, Failed::Return).await
}

/// `/Node/fail`: the session goes on for somebody to look at what failed.
pub async fn extend_nodes(
    State(legacy): State<Arc<Legacy>>,
    Extension(info): Extension<RequestInfo>,
    query: Query,
) -> Result<Response, Response> {
    let update = SessionUpdate {
        active: None,
        expires_at: Some(LONGER.to_owned()),
    };
    update_session(&legacy, &info, &query, update, Failed::Extend).await
}

async fn update_session(
    legacy: &Legacy,
    info: &RequestInfo,
    query: &Query,
    update: SessionUpdate,
    failed: Failed,
) -> Result<Response, Response> {
    let caller = tenant(legacy, query, info)?;
    let session = find(query, "ssid").filter(|text| !text.is_empty());
    let session = session.ok_or_else(incomplete)?;
    let Some(session) = parse_session(session) else {
        tracing::info!("ssid is no number of a session");
        return Err(failed.into_response());
    };
    let ask = move |client: &duffy_client::Client| client.update_session(session, &update);
    let read = |reply: &duffy_client::Reply| (reply.status() == 200).then_some(());
    let asked = legacy.upstream.call(Kind::Write, &caller, ask, read).await;
    match asked {
        Ok(()) => Ok(done()),
        Err(error) if error.is_denied() => Err(denied()),
        Err(_) => Err(failed.into_response()),
    }
}

/// Stands for a list that a key is denied: no JSON is empty.
const DENIED: Bytes = Bytes::new();

/// `/Inventory`: the nodes lent, to whom a key belongs or, without one, to everybody.
pub async fn list_nodes(
    State(legacy): State<Arc<Legacy>>,
    Extension(info): Extension<RequestInfo>,
    query: Query,
) -> Result<Response, Response> {
    let (caller, row): (_, fn(&Legacy, &Value, &Value) -> Value) =
        match tenant(&legacy, &query, &info) {
            Ok(caller) => (caller, own_row),
            Err(Refused::NoKey) => (nobody(&info), public_row),
            Err(refused) => return Err(refused.into_response()),
        };
    let has_key = caller.tenant.is_some();
    // The same key sees the same list.
    let mut keys = legacy.settings.usermap.iter();
    let key = caller.tenant.as_ref().and_then(|(_, key)| {
        keys.position(|(known, _)| known.expose_secret() == key.expose_secret())
    });
    let read = {
        let legacy = Arc::clone(&legacy);
        move |reply: &duffy_client::Reply| {
            let sessions = reply.json().get("sessions")?.as_array()?;
            let mut rows = Vec::new();
            for session in sessions {
                let nodes = session.get("nodes")?.as_array()?;
                rows.extend(nodes.iter().map(|node| row(&legacy, session, node)));
            }
            (reply.status() == 200).then(|| Bytes::from(Value::Array(rows).to_string()))
        }
    };
    let asked = async {
        let ask = duffy_client::Client::list_sessions;
        match legacy.upstream.call(Kind::Read, &caller, ask, read).await {
            // It holds for all who share the list.
            Err(error) if has_key && error.is_denied() => Ok(DENIED),
            asked => asked,
        }
    };
    match legacy.lists.share(key, asked).await {
        Ok(list) if list.bytes() == DENIED => Err(denied()),
        Ok(list) => Ok(list.into_response()),
        Err(_) => Err(Failed::Inventory.into_response()),
    }
}

/// Host name and session.
fn own_row(legacy: &Legacy, session: &Value, node: &Value) -> Value {
    json!([legacy.hostname(node), session["id"]])
}

/// The columns of the old database. Those that nothing fills any more are null.
fn public_row(legacy: &Legacy, session: &Value, node: &Value) -> Value {
    let comment = match &session["id"] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    json!([
        node["id"],
        legacy.hostname(node),
        node["ipaddr"],
        null, // chassis
        0,    // used_count
        node["state"],
        comment,
        null, // distro
        null, // rel
        null, // ver
        null, // arch
        node["pool"],
        null, // console_port
        null, // flavor
    ])
}

/// `/healthz`: whether the web API answers and is well.
pub async fn health(
    State(legacy): State<Arc<Legacy>>,
    Extension(info): Extension<RequestInfo>,
) -> Response {
    // The Python original has no such endpoint, but says so.
    let ask = |client: &duffy_client::Client| match client.check_health() {
        Err(ClientError::Refused(refusal)) if refusal.status == 404 => client.list_pools(),
        other => other,
    };
    let asked = legacy
        .upstream
        .call(Kind::Health, &nobody(&info), ask, |_| Some(()))
        .await;
    match asked {
        // One that wants to know who asks is there.
        Ok(()) | Err(CallError::Refused(401 | 403)) => {
            Json(json!({"status": "ok"})).into_response()
        }
        Err(_) => {
            let body = json!({"status": "failed", "detail": "The web API does not answer"});
            (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response()
        }
    }
}

fn nobody(info: &RequestInfo) -> Caller {
    Caller {
        tenant: None,
        request_id: Arc::clone(&info.id),
        client: info.client,
    }
}

/// The tenant whose key is in the query.
fn tenant(legacy: &Legacy, query: &Query, info: &RequestInfo) -> Result<Caller, Refused> {
    let key = find(query, "key").filter(|key| !key.is_empty());
    let key = key.ok_or(Refused::NoKey)?;
    let name = legacy.settings.user_of(key).ok_or(Refused::UnknownKey)?;
    tracing::Span::current().record("tenant.name", name);
    Ok(Caller {
        tenant: Some((name.to_owned(), SecretString::from(key))),
        request_id: Arc::clone(&info.id),
        client: info.client,
    })
}

impl From<Refused> for Response {
    fn from(refused: Refused) -> Self {
        refused.into_response()
    }
}
