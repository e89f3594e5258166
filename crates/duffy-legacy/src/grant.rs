//! A session that was granted but whose reply has not gone out.
//!
//! When its client has gone nobody knows of the session, and it is retired again.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::{Instrument, Span};

use crate::Legacy;
use crate::upstream::{Caller, Kind};

/// How often it is tried to retire a session that nobody took.
const ATTEMPTS: u32 = 7;

/// A session that is retired when this is dropped, unless it was taken.
pub struct Grant {
    session: i64,
    reply: Bytes,
    back: Option<Back>,
    /// The proxy does not end before it is clear who has the session.
    _running: TaskTrackerToken,
}

/// What it takes to give a session back.
struct Back {
    legacy: Arc<Legacy>,
    caller: Caller,
    runtime: Handle,
    span: Span,
}

impl Grant {
    /// The session in a reply of the web API; `None` when there is none.
    pub fn read(
        legacy: &Arc<Legacy>,
        caller: Caller,
        runtime: Handle,
        body: &Value,
    ) -> Option<Self> {
        let session = body.get("session")?.as_object()?;
        let number = session.get("id")?.as_i64()?;
        let mut grant = Self {
            session: number,
            reply: Bytes::new(),
            back: Some(Back {
                legacy: Arc::clone(legacy),
                caller,
                runtime,
                span: Span::current(),
            }),
            _running: legacy.tasks().token(),
        };
        // From here on, what cannot be told to the client is given back.
        let nodes = session.get("nodes")?.as_array()?;
        let hosts: Vec<Value> = nodes.iter().map(|node| legacy.hostname(node)).collect();
        grant.reply = json!({"ssid": number, "hosts": hosts}).to_string().into();
        tracing::info!(session.id = number, nodes = hosts.len(), "session granted");
        Some(grant)
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        if let Some(back) = self.back.take() {
            let _in_span = back.span.clone().entered();
            tracing::warn!(
                session.id = self.session,
                "nobody took the session, retiring it"
            );
            let tasks = back.legacy.tasks().clone();
            let (runtime, span) = (back.runtime.clone(), back.span.clone());
            tasks.spawn_on(back.retire(self.session).instrument(span), &runtime);
        }
    }
}

impl Back {
    async fn retire(self, session: i64) {
        let upstream = &self.legacy.upstream;
        let mut pause = upstream.retire_pause();
        for attempt in 1..=ATTEMPTS {
            let ask = move |client: &duffy_client::Client| client.retire_session(session);
            match upstream
                .call(Kind::Write, &self.caller, ask, |_| Some(()))
                .await
            {
                Ok(()) => {
                    tracing::info!(session.id = session, "session retired");
                    return;
                }
                Err(error) if !error.may_pass() => return,
                Err(_) if attempt < ATTEMPTS => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(30));
                }
                // Then it ends when it expires.
                Err(_) => tracing::error!(
                    session.id = session,
                    "a session that nobody took could not be retired"
                ),
            }
        }
    }
}

impl IntoResponse for Grant {
    /// With the body fetched by the connection, the session counts as taken.
    fn into_response(mut self) -> Response {
        let bytes = std::mem::take(&mut self.reply);
        let length = HeaderValue::from(bytes.len());
        let mut grant = Some(self);
        let body = Full::new(bytes).map_frame(move |frame| {
            if let Some(mut grant) = grant.take() {
                grant.back = None;
            }
            frame
        });
        let json = HeaderValue::from_static("application/json");
        let headers = [(CONTENT_TYPE, json), (CONTENT_LENGTH, length)];
        (StatusCode::OK, headers, Body::new(body)).into_response()
    }
}
