//! The `events` table: what happened to nodes, sessions and pools, who did it and why. Each change of a row adds its
//! events in its own transaction. `old_events` removes old rows.

use duffy_api::NodeState;
use serde::Serialize;

use super::query::Statement;
use super::{DbError, DbResult, Timestamp, Tx};
use crate::cause::Cause;

/// Something that happened, to be recorded.
#[derive(Debug, Clone, Serialize)]
pub struct Event {
    /// What happened.
    pub cause: Cause,
    /// The node.
    pub node_id: Option<i64>,
    /// The session.
    pub session_id: Option<i64>,
    /// Whose session.
    pub tenant_id: Option<i64>,
    /// The pool.
    pub pool: Option<String>,
    /// The node's state before.
    pub from: Option<NodeState>,
    /// The node's state after.
    pub to: Option<NodeState>,
    /// The last lines of a playbook or of SSH, or an operator's reason.
    pub detail: Option<String>,
}

impl Event {
    /// An event with a cause and nothing else.
    pub fn new(cause: Cause) -> Self {
        Self {
            cause,
            node_id: None,
            session_id: None,
            tenant_id: None,
            pool: None,
            from: None,
            to: None,
            detail: None,
        }
    }

    /// An event of a session.
    pub fn of_session(cause: Cause, id: i64, tenant_id: i64) -> Self {
        Self {
            session_id: Some(id),
            tenant_id: Some(tenant_id),
            ..Self::new(cause)
        }
    }

    /// An event of a pool.
    pub fn of_pool(cause: Cause, pool: &str) -> Self {
        Self {
            pool: Some(pool.to_owned()),
            ..Self::new(cause)
        }
    }

    /// Adds a detail.
    #[must_use]
    pub fn with_detail(self, detail: impl Into<String>) -> Self {
        Self {
            detail: Some(detail.into()),
            ..self
        }
    }
}

/// A row of the history.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct EventRow {
    /// Its number: later rows have higher ones.
    pub id: i64,
    /// When it happened.
    pub created_at: Timestamp,
    /// The node.
    pub node_id: Option<i32>,
    /// The session.
    pub session_id: Option<i32>,
    /// Whose session.
    pub tenant_id: Option<i32>,
    /// The pool.
    pub pool: Option<String>,
    /// The node's state before.
    pub from_state: Option<String>,
    /// The node's state after.
    pub to_state: Option<String>,
    /// What happened.
    pub cause: String,
    /// Who did it.
    pub actor: String,
    /// The last lines of a playbook or of SSH, or an operator's reason.
    pub detail: Option<String>,
}

/// The longest detail that is kept, in bytes. The end of a longer one is kept.
const MAX_DETAIL: usize = 4096;

/// Records an event. The transaction knows who did it.
pub async fn record(tx: &mut Tx, event: Event) -> DbResult<()> {
    record_all(tx, vec![event]).await
}

/// Records events in this order.
pub(super) async fn record_all(tx: &mut Tx, events: Vec<Event>) -> DbResult<()> {
    let rows = rows(tx, events)?;
    let Statement { sql, values } = insert(&rows);
    tx.execute(sql, &values).await
}

/// Events as [`insert`] takes them.
pub(super) struct Rows {
    events: String,
    actor: String,
}

/// Returns events that [`insert`] records. The transaction knows who did it.
pub(super) fn rows(tx: &Tx, mut events: Vec<Event>) -> DbResult<Rows> {
    for event in &mut events {
        event.detail = event.detail.as_deref().map(clean);
    }
    let events =
        serde_json::to_string(&events).map_err(|error| DbError::Corrupt(error.to_string()))?;
    let actor = tx.0.actor.as_ref().to_owned();
    Ok(Rows { events, actor })
}

/// Returns the statement that records events in their order.
pub(super) fn insert(rows: &Rows) -> Statement<'_> {
    let sql = "INSERT INTO events (created_at, node_id, session_id, tenant_id, pool, from_state, \
        to_state, cause, actor, detail) SELECT {now}, CAST(value ->> 'node_id' AS INTEGER), \
        CAST(value ->> 'session_id' AS INTEGER), CAST(value ->> 'tenant_id' AS INTEGER), \
        value ->> 'pool', value ->> 'from', value ->> 'to', value ->> 'cause', $2, \
        value ->> 'detail' FROM {json_rows $1}";
    Statement {
        sql,
        values: vec![&rows.events, &rows.actor],
    }
}

/// Returns the end of a text, as a database can hold it.
fn clean(detail: &str) -> String {
    let start = detail.ceil_char_boundary(detail.len().saturating_sub(MAX_DETAIL));
    // PostgreSQL's text cannot hold U+0000.
    detail[start..].replace('\0', "\u{fffd}")
}

/// Lists up to `limit` events of a node that follow the event numbered `after`, oldest first. With a tenant, lists only
/// events of its sessions.
pub async fn list_of_node(
    tx: &mut Tx,
    node_id: i64,
    after: i64,
    tenant_id: Option<i64>,
    limit: u32,
) -> DbResult<Vec<EventRow>> {
    let sql = "SELECT {event_columns} FROM events WHERE node_id = $1 AND id > $2 \
        AND (CAST($3 AS INTEGER) IS NULL OR tenant_id = $3) ORDER BY id LIMIT $4";
    tx.fetch_all(sql, &[&node_id, &after, &tenant_id, &i64::from(limit)])
        .await
}

/// Lists the latest events of a node, newest first.
pub async fn last_of_node(tx: &mut Tx, node_id: i64, limit: u32) -> DbResult<Vec<EventRow>> {
    let sql = "SELECT {event_columns} FROM events WHERE node_id = $1 ORDER BY id DESC LIMIT $2";
    tx.fetch_all(sql, &[&node_id, &i64::from(limit)]).await
}

/// Lists events of a session, and of its nodes while it had them, as [`list_of_node`] does.
pub async fn list_of_session(
    tx: &mut Tx,
    session_id: i64,
    after: i64,
    limit: u32,
) -> DbResult<Vec<EventRow>> {
    let sql = "SELECT {event_columns} FROM events WHERE session_id = $1 AND id > $2 \
        ORDER BY id LIMIT $3";
    tx.fetch_all(sql, &[&session_id, &after, &i64::from(limit)])
        .await
}
