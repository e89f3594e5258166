//! The reply that grants a session. If no client receives it, the session is retired.

use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use axum::response::Response;
use duffy_web::grant::Grant;
use serde_json::{Value, json};
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::Legacy;
use crate::upstream::{Caller, Kind};

/// Most attempts to retire a session that no client received.
const ATTEMPTS: u32 = 7;

/// Returns the reply with the session in `body`, a reply of the web API. `None` if that has no session.
pub fn reply(legacy: &Arc<Legacy>, caller: Caller, body: &Value) -> Option<Response> {
    let session = body.get("session")?.as_object()?;
    let number = session.get("id")?.as_i64()?;
    // The proxy does not end before the client has the session, or it is retired.
    let tasks = &legacy.upstream.tasks;
    let give_back = retire(Arc::clone(legacy), caller, number, tasks.token());
    let grant = Grant::new(number, tasks, give_back);
    // If the nodes cannot be read, the session is given back here.
    let nodes = session.get("nodes")?.as_array()?;
    let hosts: Vec<Value> = nodes.iter().map(|node| legacy.hostname(node)).collect();
    tracing::info!(session.id = number, nodes = hosts.len(), "session granted");
    let json = json!({"ssid": number, "hosts": hosts}).to_string();
    Some(grant.reply(StatusCode::OK, json, ready(Ok(()))))
}

async fn retire(legacy: Arc<Legacy>, caller: Caller, session: i64, _running: TaskTrackerToken) {
    let upstream = &legacy.upstream;
    let mut pause = upstream.times.retire_pause;
    for attempt in 1..=ATTEMPTS {
        let ask = move |client: &duffy_client::Client| client.retire_session(session);
        match upstream.call(Kind::Write, &caller, ask, |_| Some(())).await {
            Ok(()) => {
                tracing::info!(session.id = session, "session retired");
                return;
            }
            Err(error) if !error.may_pass() => return,
            Err(_) if attempt < ATTEMPTS => {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(30));
            }
            // It ends when it expires.
            Err(_) => tracing::error!(
                session.id = session,
                "a session that nobody took could not be retired"
            ),
        }
    }
}
