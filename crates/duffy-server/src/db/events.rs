//! The `events` table: what happened to nodes, sessions and pools, who did it and why. Rows are only
//! added, in the transaction of what they tell of, and go when they are too old to be kept.

use duffy_api::NodeState;

use super::{DbError, Timestamp, Tx};

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// A node was registered.
    Registered,
    /// A pool lacked a node.
    Filled,
    /// A worker began an attempt.
    Claimed,
    /// The mechanism made the node.
    Provisioned,
    /// The mechanism took the node down.
    Deprovisioned,
    /// A session took the node.
    Reserved,
    /// The tenant's key is on the node.
    Deployed,
    /// The session was not granted, the node is as good as before.
    Returned,
    /// An attempt failed, and another one follows.
    Postponed,
    /// Given up.
    Failed,
    /// Work was stopped, and somebody else may go on.
    HandedBack,
    /// The tenant's key is off a node that an operator keeps as it is.
    KeysRemoved,
    /// A session was granted.
    Granted,
    /// A session's end was moved.
    Extended,
    /// A session was retired by its tenant, an administrator or for its tenant.
    Retired,
    /// A session's time was over.
    Expired,
    /// A session could not be granted, and was undone.
    Refused,
    /// A session was rolled back, for the process that was at it died.
    Abandoned,
    /// A node in use belonged to no running session.
    Orphaned,
    /// A failed node is deprovisioned, to be used again or to be gone.
    Repaired,
    /// An operator keeps a node as it is.
    Held,
    /// An operator lets go of a node that was held.
    Released,
    /// An operator takes a node out for good.
    NodeRetired,
    /// A pool's mechanism keeps failing and is tried more rarely.
    PoolFailing,
    /// A pool's mechanism works again.
    PoolRecovered,
    /// An operator emptied a pool, and it is not filled.
    Drained,
    /// An operator has a pool filled again.
    Resumed,
    /// Old history was removed.
    Purged,
}

impl Cause {
    /// As it stands in the table and in replies.
    pub fn as_str(self) -> &'static str {
        match self {
            Cause::Registered => "registered",
            Cause::Filled => "filled",
            Cause::Claimed => "claimed",
            Cause::Provisioned => "provisioned",
            Cause::Deprovisioned => "deprovisioned",
            Cause::Reserved => "reserved",
            Cause::Deployed => "deployed",
            Cause::Returned => "returned",
            Cause::Postponed => "postponed",
            Cause::Failed => "failed",
            Cause::HandedBack => "handed-back",
            Cause::KeysRemoved => "keys-removed",
            Cause::Granted => "granted",
            Cause::Extended => "extended",
            Cause::Retired => "retired",
            Cause::Expired => "expired",
            Cause::Refused => "refused",
            Cause::Abandoned => "abandoned",
            Cause::Orphaned => "orphaned",
            Cause::Repaired => "repaired",
            Cause::Held => "held",
            Cause::Released => "released",
            Cause::NodeRetired => "node-retired",
            Cause::PoolFailing => "pool-failing",
            Cause::PoolRecovered => "pool-recovered",
            Cause::Drained => "drained",
            Cause::Resumed => "resumed",
            Cause::Purged => "purged",
        }
    }
}

/// Something that happened, to be written down.
#[derive(Debug, Clone, Copy)]
pub struct Event<'a> {
    /// What.
    pub cause: Cause,
    /// The node.
    pub node_id: Option<i64>,
    /// The session.
    pub session_id: Option<i64>,
    /// Whose session.
    pub tenant_id: Option<i64>,
    /// The pool.
    pub pool: Option<&'a str>,
    /// The node's state before.
    pub from: Option<NodeState>,
    /// The node's state after.
    pub to: Option<NodeState>,
    /// The last lines of a playbook or of SSH, an operator's reason.
    pub detail: Option<&'a str>,
}

impl<'a> Event<'a> {
    /// Of a cause alone.
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

    /// What happened to a node.
    pub fn of_node(cause: Cause, id: i64, from: NodeState, to: NodeState) -> Self {
        Self {
            node_id: Some(id),
            from: Some(from),
            to: Some(to),
            ..Self::new(cause)
        }
    }

    /// What happened to a session.
    pub fn of_session(cause: Cause, id: i64, tenant_id: i64) -> Self {
        Self {
            session_id: Some(id),
            tenant_id: Some(tenant_id),
            ..Self::new(cause)
        }
    }

    /// What happened to a pool.
    pub fn of_pool(cause: Cause, pool: &'a str) -> Self {
        Self {
            pool: Some(pool),
            ..Self::new(cause)
        }
    }

    /// In this pool.
    #[must_use]
    pub fn in_pool(self, pool: Option<&'a str>) -> Self {
        Self { pool, ..self }
    }

    /// In a session.
    #[must_use]
    pub fn in_session(self, id: i64, tenant_id: i64) -> Self {
        Self {
            session_id: Some(id),
            tenant_id: Some(tenant_id),
            ..self
        }
    }

    /// With more to say.
    #[must_use]
    pub fn with_detail(self, detail: &'a str) -> Self {
        Self {
            detail: Some(detail),
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
    /// Last lines of a playbook or of SSH, an operator's reason.
    pub detail: Option<String>,
}

/// Longest detail that is kept, in bytes: its end counts.
const MAX_DETAIL: usize = 4096;

/// Writes down what happened. Who did it is known to the transaction.
pub async fn record(tx: &mut Tx, event: &Event<'_>) -> Result<(), DbError> {
    let detail = event.detail.map(clean);
    let actor = tx.0.actor.clone();
    tx.query(
        "INSERT INTO events (created_at, node_id, session_id, tenant_id, pool, from_state, \
         to_state, cause, actor, detail) \
         VALUES ({now}, $1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(event.node_id)
    .bind(event.session_id)
    .bind(event.tenant_id)
    .bind(event.pool)
    .bind(event.from.map(NodeState::as_str))
    .bind(event.to.map(NodeState::as_str))
    .bind(event.cause.as_str())
    .bind(&*actor)
    .bind(&detail)
    .execute()
    .await?;
    Ok(())
}

/// The end of a text, as a database can hold it.
fn clean(detail: &str) -> String {
    let mut start = detail.len().saturating_sub(MAX_DETAIL);
    while !detail.is_char_boundary(start) {
        start += 1;
    }
    let end = detail.get(start..).unwrap_or_default();
    // PostgreSQL's text cannot hold U+0000.
    end.replace('\0', "\u{fffd}")
}

/// Writes down for each node in use by a session what is about to happen to it.
pub(super) async fn record_nodes_of_session(
    tx: &mut Tx,
    session_id: i64,
    to: NodeState,
    cause: Cause,
) -> Result<(), DbError> {
    let actor = tx.0.actor.clone();
    // Before the nodes change: their states are those from which they come.
    tx.query(
        "INSERT INTO events (created_at, node_id, session_id, tenant_id, pool, from_state, \
         to_state, cause, actor) SELECT {now}, nodes.id, sessions.id, sessions.tenant_id, \
         nodes.pool, CAST(nodes.state AS TEXT), $2, $3, $4 FROM sessions_nodes \
         JOIN sessions ON sessions.id = sessions_nodes.session_id \
         JOIN nodes ON nodes.id = sessions_nodes.node_id \
         WHERE sessions_nodes.session_id = $1 AND nodes.retired_at IS NULL \
         AND (nodes.state = 'contextualizing' OR (nodes.state = 'deployed' AND $2 <> 'deployed'))",
    )
    .bind(session_id)
    .bind(to.as_str())
    .bind(cause.as_str())
    .bind(&*actor)
    .execute()
    .await?;
    Ok(())
}

/// Writes down that a pool was given the new nodes from `first` to `last`.
pub(super) async fn record_new_nodes(
    tx: &mut Tx,
    first: i32,
    last: i32,
    pool: &str,
) -> Result<(), DbError> {
    let actor = tx.0.actor.clone();
    // After they were added, under the pool's lock.
    tx.query(
        "INSERT INTO events (created_at, node_id, pool, to_state, cause, actor) \
         SELECT {now}, id, pool, CAST(state AS TEXT), 'filled', $4 FROM nodes \
         WHERE id BETWEEN $1 AND $2 AND pool = $3 AND state = 'provisioning'",
    )
    .bind(first)
    .bind(last)
    .bind(pool)
    .bind(&*actor)
    .execute()
    .await?;
    Ok(())
}

/// What happened to a node after the event numbered `after`, oldest first, `limit` rows at most;
/// of that only what belongs to a tenant's sessions, if one is named.
pub async fn list_of_node(
    tx: &mut Tx,
    node_id: i64,
    after: i64,
    tenant_id: Option<i64>,
    limit: u32,
) -> Result<Vec<EventRow>, DbError> {
    tx.query(
        "SELECT {event_columns} FROM events WHERE node_id = $1 AND id > $2 \
         AND (CAST($3 AS INTEGER) IS NULL OR tenant_id = $3) ORDER BY id LIMIT $4",
    )
    .bind(node_id)
    .bind(after)
    .bind(tenant_id)
    .bind(i64::from(limit))
    .fetch_all()
    .await
}

/// The latest that happened to a node, newest first.
pub async fn last_of_node(tx: &mut Tx, node_id: i64, limit: u32) -> Result<Vec<EventRow>, DbError> {
    tx.query("SELECT {event_columns} FROM events WHERE node_id = $1 ORDER BY id DESC LIMIT $2")
        .bind(node_id)
        .bind(i64::from(limit))
        .fetch_all()
        .await
}

/// What happened to a session and to its nodes while it had them, as with [`list_of_node`].
pub async fn list_of_session(
    tx: &mut Tx,
    session_id: i64,
    after: i64,
    limit: u32,
) -> Result<Vec<EventRow>, DbError> {
    tx.query(
        "SELECT {event_columns} FROM events WHERE session_id = $1 AND id > $2 \
         ORDER BY id LIMIT $3",
    )
    .bind(session_id)
    .bind(after)
    .bind(i64::from(limit))
    .fetch_all()
    .await
}
