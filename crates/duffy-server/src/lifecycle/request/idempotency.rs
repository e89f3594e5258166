//! Repeated requests get the reply of the first request, whichever process handles them.

use std::time::Duration;

use duffy_api::{Action, Session, SessionCreate, SessionResult};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::context::Ctx;
use crate::db::idempotency::{self, KeyRow, NewKey};
use crate::db::{DbError, Tx, sessions};
use crate::lifecycle::request::error::SessionError;
use crate::lifecycle::sessions::ending::end_session;
use crate::lifecycle::work::lease;
use crate::node_state::Transition;

/// How long a repeated request waits for the reply of the first one: less than the server's limit for any request.
const PATIENCE: Duration = Duration::from_mins(14);
/// The pause between polls, in milliseconds. It is random, so that many requests do not poll at the same time.
const LOOKS_MS: std::ops::RangeInclusive<u64> = 100..=500;
/// How long a session waits for a client that hung up and can repeat the request with its key.
pub const GRACE: Duration = Duration::from_mins(1);

/// The state of a request's key.
#[derive(Debug)]
pub(crate) enum KeyState {
    /// The request is the first, or earlier ones failed; the session of an earlier one.
    First(Option<i64>),
    /// Another request with the key is running.
    Second,
    /// Another request was granted this session, with this reply.
    Answered(i64, String),
}

/// Returns the key of a request, with the caller and a digest of the request.
pub(crate) fn new_key(
    caller: i64,
    key: String,
    tenant_id: i64,
    create: &SessionCreate,
) -> Result<NewKey, SessionError> {
    // The request is the same with or without the tenant's number.
    let canonical = SessionCreate {
        tenant_id: Some(tenant_id),
        nodes_specs: create.nodes_specs.clone(),
    };
    let digest = Sha256::digest(to_json(&canonical)?);
    Ok(NewKey {
        tenant_id: caller,
        key,
        request: format!("{digest:x}"),
    })
}

/// Finds the state of a request's key.
pub(crate) async fn find_key_state(tx: &mut Tx, key: &NewKey) -> Result<KeyState, SessionError> {
    match idempotency::find_key(tx, key.tenant_id, &key.key).await? {
        None => Ok(KeyState::First(None)),
        Some(row) if row.request != key.request => Err(SessionError::OtherRequest),
        Some(KeyRow {
            session_id,
            reply: Some(reply),
            ..
        }) => Ok(KeyState::Answered(session_id, reply)),
        // It was refused, or rolled back after a crash: there will be no reply.
        Some(row) if row.retired_at.is_some() => Ok(KeyState::First(Some(row.session_id))),
        Some(_) => Ok(KeyState::Second),
    }
}

/// Stores that the key led to a session. False when another request was faster.
pub(crate) async fn claim(
    tx: &mut Tx,
    key: &NewKey,
    before: Option<i64>,
    session_id: i64,
) -> Result<bool, DbError> {
    match before {
        None => idempotency::insert_key(tx, key, session_id).await,
        Some(before) => idempotency::take_key_over(tx, key, before, session_id).await,
    }
}

/// Waits while another request with this key is running, in any process. Returns its session and reply; `None` when no
/// other request is running or has a reply.
pub(crate) async fn await_answer(
    ctx: &Ctx,
    key: &NewKey,
) -> Result<Option<(i64, String)>, SessionError> {
    let until = Instant::now() + PATIENCE;
    let mut told = false;
    loop {
        let read = async |mut tx| find_key_state(&mut tx, key).await;
        let state = ctx.db.read(read).await?;
        match state {
            KeyState::First(_) => return Ok(None),
            KeyState::Answered(session_id, reply) => return Ok(Some((session_id, reply))),
            KeyState::Second if Instant::now() > until => return Err(SessionError::FirstStillRuns),
            KeyState::Second => {
                if !told {
                    tracing::info!("waiting for the reply to the first request with this key");
                }
                told = true;
            }
        }
        let pause = Duration::from_millis(rand::random_range(LOOKS_MS));
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = ctx.stop.cancelled() => return Err(SessionError::Stopping),
        }
    }
}

/// Returns the reply that grants a session. Repeated requests get the same bytes.
pub(crate) fn reply_of(session: &Session) -> Result<String, SessionError> {
    to_json(&SessionResult {
        action: Action::Post,
        session: session.clone(),
    })
}

fn to_json(value: &impl serde::Serialize) -> Result<String, SessionError> {
    serde_json::to_string(value)
        .map_err(|error| SessionError::Db(DbError::Corrupt(error.to_string())))
}

/// A session that was granted to a request with a key.
#[derive(Debug, Clone)]
pub struct Promise {
    /// Whose key.
    pub tenant_id: i64,
    /// The key.
    pub key: String,
    /// The session.
    pub session_id: i64,
}

impl Promise {
    /// Call before sending the reply: from here on, the client has the session. False when it was given back meanwhile.
    pub async fn keep(&self, ctx: &Ctx) -> Result<bool, DbError> {
        let (tenant, key) = (self.tenant_id, &self.key);
        let mark =
            async |mut tx| idempotency::mark_fetched(&mut tx, tenant, key, self.session_id).await;
        ctx.db.transaction(mark).await
    }

    /// Waits for a client that hung up to repeat the request, and gives the session back if it does not. A server that
    /// stops leaves the session to a repeated request or to its expiry.
    pub async fn wait_and_break(&self, ctx: &Ctx) -> Result<(), DbError> {
        tokio::select! {
            () = tokio::time::sleep(GRACE) => {}
            () = ctx.stop.cancelled() => return Ok(()),
        }
        if lease::persist(ctx, || self.give_up(ctx)).await? {
            tracing::warn!(
                session.id = self.session_id,
                "the client did not come back for its session; session retired"
            );
        }
        Ok(())
    }

    /// Retires the session and deletes the key, so that a later repeat is a new request. False, without changes, when
    /// the reply was sent after all, or the session is over.
    pub async fn give_up(&self, ctx: &Ctx) -> Result<bool, DbError> {
        let write = async |mut tx| {
            let session = sessions::lock_session(&mut tx, self.session_id).await?;
            if session.is_none_or(|session| session.retired_at.is_some()) {
                return Ok(false);
            }
            let (tenant, key) = (self.tenant_id, &self.key);
            let forgotten =
                idempotency::delete_unfetched(&mut tx, tenant, key, self.session_id).await?;
            if forgotten {
                end_session(&mut tx, self.session_id, Transition::Retire).await?;
            }
            Ok(forgotten)
        };
        ctx.db.transaction(write).await
    }
}
