//! The endpoints of the old API.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use duffy_api::{NodesSpec, SessionUpdate};
use duffy_client::{Client, ClientError, Reply};
use duffy_config::PoolRequest;
use duffy_web::RequestInfo;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use crate::query::{Query, find, parse_count};
use crate::reply::LegacyError;
use crate::upstream::{CallError, Caller, Kind};
use crate::{Legacy, grant};

/// By how much a session whose job failed is extended, for debugging.
const EXTENSION: &str = "+6h";

type Proxy = State<Arc<Legacy>>;
type Info = Extension<RequestInfo>;
type Answer = Result<Response, LegacyError>;

/// `/Node/get`: grants a session with nodes of one pool.
pub async fn get_nodes(State(legacy): Proxy, info: Info, query: Query) -> Answer {
    let caller = tenant(&legacy, &query, &info)?;
    let count = find(&query, "count").unwrap_or("1");
    let quantity = parse_count(count).ok_or_else(|| LegacyError::NotANumber(count.to_owned()))?;
    let request = PoolRequest {
        ver: Some(find(&query, "ver").unwrap_or("7")),
        arch: Some(find(&query, "arch").unwrap_or("x86_64")),
        flavor: find(&query, "flavor"),
    };
    let pool = legacy.settings.pool_for(&request).map_err(|error| {
        tracing::error!(?request, %error, "the pool's template fails");
        LegacyError::Allocate
    })?;
    let Some(pool) = pool else {
        tracing::info!(?request, "no pool matches the request");
        return Err(LegacyError::Allocate);
    };
    if quantity == 0 {
        tracing::info!("count is not a possible number of nodes");
        return Err(LegacyError::Allocate);
    }
    let spec = NodesSpec { quantity, pool };
    let ask = move |client: &Client| {
        let key = duffy_client::new_key();
        let ask = |_| client.request_session(std::slice::from_ref(&spec), Some(&key));
        duffy_client::repeat(ask, |error, pause| {
            tracing::warn!(%error, "the answer was lost, asking again in {} s", pause.as_secs());
        })
    };
    let granted = {
        let (legacy, caller) = (Arc::clone(&legacy), caller.clone());
        move |reply: &Reply| {
            let granted = grant::reply(&legacy, caller, reply.json())?;
            (reply.status() == 201).then_some(granted)
        }
    };
    let call = legacy.upstream.call(Kind::Grant, &caller, ask, granted);
    call.await.map_err(|_| LegacyError::Allocate)
}

/// `/Node/done`: retires a session.
pub async fn return_nodes(State(legacy): Proxy, info: Info, query: Query) -> Answer {
    let update = SessionUpdate {
        active: Some(false),
        ..SessionUpdate::default()
    };
    update_session(&legacy, &info, &query, update, LegacyError::Return).await
}

/// `/Node/fail`: extends a session, so that a failed job can be debugged.
pub async fn extend_nodes(State(legacy): Proxy, info: Info, query: Query) -> Answer {
    let update = SessionUpdate {
        expires_at: Some(EXTENSION.to_owned()),
        ..SessionUpdate::default()
    };
    update_session(&legacy, &info, &query, update, LegacyError::Extend).await
}

async fn update_session(
    legacy: &Legacy,
    info: &RequestInfo,
    query: &Query,
    update: SessionUpdate,
    failed: LegacyError,
) -> Answer {
    let caller = tenant(legacy, query, info)?;
    let session = find(query, "ssid").filter(|text| !text.is_empty());
    let Ok(session) = session.ok_or(LegacyError::NoSession)?.trim().parse() else {
        tracing::info!("ssid is not the number of a session");
        return Err(failed);
    };
    let ask = move |client: &Client| client.update_session(session, &update);
    let read = |reply: &Reply| (reply.status() == 200).then_some(());
    match legacy.upstream.call(Kind::Write, &caller, ask, read).await {
        Ok(()) => Ok(Json("Done").into_response()),
        Err(error) if error.is_denied() => Err(LegacyError::Denied),
        Err(_) => Err(failed),
    }
}

/// Stands for a list that the web API denies to the key. No JSON is empty.
const DENIED: Bytes = Bytes::new();

/// `/Inventory`: lists the nodes in use, those of the key's tenant or, without a key, all.
pub async fn list_nodes(State(legacy): Proxy, info: Info, query: Query) -> Answer {
    let (caller, row): (_, fn(&Legacy, &Value, &Value) -> Value) =
        match tenant(&legacy, &query, &info) {
            Ok(caller) => (caller, own_row),
            Err(LegacyError::NoKey) => (nobody(&info), public_row),
            Err(refused) => return Err(refused),
        };
    // Requests with the same key share a list.
    let mut keys = legacy.settings.usermap.iter();
    let key = caller.tenant.as_ref().and_then(|(_, key)| {
        keys.position(|(known, _)| known.expose_secret() == key.expose_secret())
    });
    let read = {
        let legacy = Arc::clone(&legacy);
        move |reply: &Reply| {
            let sessions = reply.json().get("sessions")?.as_array()?;
            let mut rows = Vec::new();
            for session in sessions {
                let nodes = session.get("nodes")?.as_array()?;
                rows.extend(nodes.iter().map(|node| row(&legacy, session, node)));
            }
            (reply.status() == 200).then(|| Bytes::from(Value::Array(rows).to_string()))
        }
    };
    let list = async {
        let call = legacy
            .upstream
            .call(Kind::Read, &caller, Client::list_sessions, read);
        match call.await {
            // All requests that share the list are denied.
            Err(error) if caller.tenant.is_some() && error.is_denied() => Ok(DENIED),
            result => result,
        }
    };
    match legacy.lists.share(key, list).await {
        Ok(list) if list.bytes() == DENIED => Err(LegacyError::Denied),
        Ok(list) => Ok(list.into_response()),
        Err(_) => Err(LegacyError::Inventory),
    }
}

/// Host name and session.
fn own_row(legacy: &Legacy, session: &Value, node: &Value) -> Value {
    json!([legacy.hostname(node), session["id"]])
}

/// The columns of the old database. Those without data are null.
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

/// `/healthz`: checks whether the web API answers and is healthy.
pub async fn health(State(legacy): Proxy, info: Info) -> Answer {
    // The Python original has no such endpoint and answers 404.
    let ask = |client: &Client| match client.check_health() {
        Err(ClientError::Refused(refusal)) if refusal.status == 404 => client.list_pools(),
        other => other,
    };
    let call = legacy
        .upstream
        .call(Kind::Health, &nobody(&info), ask, |_| Some(()))
        .await;
    match call {
        // A web API that requires credentials answers.
        Ok(()) | Err(CallError::Refused(401 | 403)) => {
            Ok(Json(json!({"status": "ok"})).into_response())
        }
        Err(_) => Err(LegacyError::Unhealthy),
    }
}

fn nobody(info: &RequestInfo) -> Caller {
    Caller {
        tenant: None,
        info: info.clone(),
    }
}

/// Returns the tenant whose key is in the query.
fn tenant(legacy: &Legacy, query: &Query, info: &RequestInfo) -> Result<Caller, LegacyError> {
    let key = find(query, "key").filter(|key| !key.is_empty());
    let key = key.ok_or(LegacyError::NoKey)?;
    let name = legacy
        .settings
        .user_of(key)
        .ok_or(LegacyError::UnknownKey)?;
    tracing::Span::current().record("tenant.name", name);
    Ok(Caller {
        tenant: Some((name.to_owned(), SecretString::from(key))),
        info: info.clone(),
    })
}
