//! The `sessions` and `sessions_nodes` tables, and what a session's end does to its nodes.

use super::events::{self, Event};
use super::tenants::TenantRow;
use super::{DbError, Interval, JsonObject, Timestamp, Tx};
use crate::cause::Cause;
use crate::db::nodes::NodeRow;

/// A session's row.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct SessionRow {
    /// Number of the session.
    #[sqlx(try_from = "i32")]
    pub id: i64,
    /// Whose it is.
    #[sqlx(try_from = "i32")]
    pub tenant_id: i64,
    /// When it ends by itself.
    pub expires_at: Option<Timestamp>,
    /// What was asked for.
    pub data: JsonObject,
    /// When it was granted.
    pub created_at: Timestamp,
    /// When it was retired.
    pub retired_at: Option<Timestamp>,
}

/// A node of a session, with the number of the session.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct SessionNodeRow {
    /// Number of the session.
    #[sqlx(try_from = "i32")]
    pub session_id: i64,
    /// The node's data as they were when it was lent.
    pub session_data: JsonObject,
    /// The node.
    #[sqlx(flatten)]
    pub node: NodeRow,
}

/// The session of this number, retired ones too.
pub async fn find_session(tx: &mut Tx, id: i64) -> Result<Option<SessionRow>, DbError> {
    tx.query("SELECT {session_columns} FROM sessions WHERE id = $1")
        .bind(id)
        .fetch_optional()
        .await
}

/// The same, and no other transaction changes it until this one ends.
pub async fn lock_session(tx: &mut Tx, id: i64) -> Result<Option<SessionRow>, DbError> {
    tx.query("SELECT {session_columns} FROM sessions WHERE id = $1 {for_update}")
        .bind(id)
        .fetch_optional()
        .await
}

/// The running sessions, of one tenant or of all.
pub async fn list_active_sessions(
    tx: &mut Tx,
    tenant_id: Option<i64>,
) -> Result<Vec<SessionRow>, DbError> {
    tx.query(
        "SELECT {session_columns} FROM sessions WHERE retired_at IS NULL \
         AND (CAST($1 AS BIGINT) IS NULL OR tenant_id = $1) ORDER BY id",
    )
    .bind(tenant_id)
    .fetch_all()
    .await
}

/// The tenants that have a running session, or this one if it has.
pub async fn list_tenants_of_active_sessions(
    tx: &mut Tx,
    tenant_id: Option<i64>,
) -> Result<Vec<TenantRow>, DbError> {
    tx.query(
        "SELECT {tenant_columns} FROM tenants WHERE id IN (SELECT tenant_id FROM sessions \
         WHERE retired_at IS NULL AND (CAST($1 AS BIGINT) IS NULL OR tenant_id = $1))",
    )
    .bind(tenant_id)
    .fetch_all()
    .await
}

/// The nodes of the running sessions, of one tenant or of all.
pub async fn list_nodes_of_active_sessions(
    tx: &mut Tx,
    tenant_id: Option<i64>,
) -> Result<Vec<SessionNodeRow>, DbError> {
    tx.query(
        "SELECT sessions_nodes.session_id, sessions_nodes.data AS session_data, {node_columns} \
         FROM sessions_nodes JOIN sessions ON sessions.id = sessions_nodes.session_id \
         JOIN nodes ON nodes.id = sessions_nodes.node_id \
         WHERE sessions.retired_at IS NULL \
         AND (CAST($1 AS BIGINT) IS NULL OR sessions.tenant_id = $1) ORDER BY nodes.id",
    )
    .bind(tenant_id)
    .fetch_all()
    .await
}

/// The nodes of a session.
pub async fn list_nodes_of_session(
    tx: &mut Tx,
    session_id: i64,
) -> Result<Vec<SessionNodeRow>, DbError> {
    tx.query(
        "SELECT sessions_nodes.session_id, sessions_nodes.data AS session_data, {node_columns} \
         FROM sessions_nodes JOIN nodes ON nodes.id = sessions_nodes.node_id \
         WHERE sessions_nodes.session_id = $1 ORDER BY nodes.id",
    )
    .bind(session_id)
    .fetch_all()
    .await
}

/// How many nodes the running sessions of a tenant hold.
pub async fn count_nodes_of_tenant(tx: &mut Tx, tenant_id: i64) -> Result<i64, DbError> {
    tx.query(
        "SELECT count(*) FROM sessions_nodes \
         JOIN sessions ON sessions.id = sessions_nodes.session_id \
         WHERE sessions.tenant_id = $1 AND sessions.retired_at IS NULL",
    )
    .bind(tenant_id)
    .value()
    .await
}

/// How many active sessions a tenant has.
pub async fn count_sessions_of_tenant(tx: &mut Tx, tenant_id: i64) -> Result<i64, DbError> {
    tx.query("SELECT count(*) FROM sessions WHERE tenant_id = $1 AND retired_at IS NULL")
        .bind(tenant_id)
        .value()
        .await
}

/// The longest life of a session, in seconds: seven thousand years.
const MAX_LIFETIME: f64 = 7_000.0 * 365.0 * 86_400.0;

/// Adds a session that ends after its lifetime.
pub async fn insert_session(
    tx: &mut Tx,
    tenant_id: i64,
    data: &JsonObject,
    lifetime: Interval,
) -> Result<SessionRow, DbError> {
    // Neither engine counts beyond the year 9999.
    let seconds = duffy_api::duration::to_seconds(lifetime.0).min(MAX_LIFETIME);
    tx.query(
        "INSERT INTO sessions (tenant_id, data, created_at, expires_at) \
         VALUES ($1, $2, {now}, {now + $3}) RETURNING {session_columns}",
    )
    .bind(tenant_id)
    .bind(data)
    .bind(seconds)
    .fetch_one()
    .await
}

/// Adds a node to a session.
pub async fn insert_session_node(
    tx: &mut Tx,
    session_id: i64,
    node_id: i64,
    pool: &str,
    data: &JsonObject,
) -> Result<(), DbError> {
    tx.query(
        "INSERT INTO sessions_nodes (session_id, node_id, pool, data) VALUES ($1, $2, $3, $4)",
    )
    .bind(session_id)
    .bind(node_id)
    .bind(pool)
    .bind(data)
    .execute()
    .await?;
    Ok(())
}

/// Puts another node in the place of one. False when the session has no such node.
pub async fn replace_session_node(
    tx: &mut Tx,
    session_id: i64,
    old: i64,
    new: i64,
    data: &JsonObject,
) -> Result<bool, DbError> {
    Ok(tx.query("UPDATE sessions_nodes SET node_id = $3, data = $4 WHERE session_id = $1 AND node_id = $2").bind(session_id).bind(old).bind(new).bind(data).execute().await? == 1)
}

/// Sets when a session ends by itself.
pub async fn set_expiry(
    tx: &mut Tx,
    session: &SessionRow,
    expires_at: Timestamp,
) -> Result<(), DbError> {
    tx.query("UPDATE sessions SET expires_at = $2 WHERE id = $1")
        .bind(session.id)
        .bind(expires_at)
        .execute()
        .await?;
    let detail = format!("expires at {}", expires_at.0.to_rfc3339());
    let event = Event::of_session(Cause::Extended, session.id, session.tenant_id);
    events::record(tx, event.with_detail(detail)).await
}

/// Retires a session. `None` when it was retired already, or is not there. Its nodes stay as they are.
pub async fn retire_session(tx: &mut Tx, id: i64) -> Result<Option<SessionRow>, DbError> {
    tx.query(
        "UPDATE sessions SET retired_at = {now} WHERE id = $1 AND retired_at IS NULL \
         RETURNING {session_columns}",
    )
    .bind(id)
    .fetch_optional()
    .await
}

/// The numbers of the nodes that a session has or had.
pub async fn list_node_ids(tx: &mut Tx, session_id: i64) -> Result<Vec<i64>, DbError> {
    let ids: Vec<i32> = tx
        .query("SELECT node_id FROM sessions_nodes WHERE session_id = $1")
        .bind(session_id)
        .column()
        .await?;
    Ok(ids.into_iter().map(i64::from).collect())
}

/// Up to `limit` sessions whose time is over.
pub async fn list_expired_sessions(tx: &mut Tx, limit: u32) -> Result<Vec<i64>, DbError> {
    let rows = tx
        .query(
            "SELECT id FROM sessions WHERE retired_at IS NULL AND expires_at < {now} \
         ORDER BY expires_at LIMIT $1",
        )
        .bind(i64::from(limit))
        .column::<i32>()
        .await?;
    Ok(rows.into_iter().map(i64::from).collect())
}

/// Locks a session whose time is over. False when it is not over, or another transaction has locked it.
pub async fn lock_expired_session(tx: &mut Tx, id: i64) -> Result<bool, DbError> {
    let row = tx
        .query(
            "SELECT id FROM sessions WHERE id = $1 AND retired_at IS NULL \
         AND expires_at < {now} {skip_locked}",
        )
        .bind(id)
        .scalar::<i32>()
        .await?;
    Ok(row.is_some())
}

/// Sessions that are not granted yet, and whose request died.
pub async fn list_abandoned_sessions(tx: &mut Tx) -> Result<Vec<i64>, DbError> {
    // A node of such a session waits for its key, and its lease has lapsed.
    let rows = tx
        .query(
            "SELECT id FROM sessions WHERE retired_at IS NULL AND id IN (\
         SELECT sessions_nodes.session_id FROM sessions_nodes \
         JOIN nodes ON nodes.id = sessions_nodes.node_id \
         WHERE nodes.state = 'contextualizing' AND nodes.retired_at IS NULL \
         AND (nodes.lease_expires_at IS NULL OR nodes.lease_expires_at <= {now})) ORDER BY id",
        )
        .column::<i32>()
        .await?;
    Ok(rows.into_iter().map(i64::from).collect())
}

/// Nodes in use that belong to no running session, and that nobody works on.
pub async fn list_orphans(tx: &mut Tx) -> Result<Vec<i64>, DbError> {
    let ids: Vec<i32> = tx
        .query(
            "SELECT id FROM nodes WHERE state IN ('contextualizing', 'deployed') AND retired_at IS NULL \
             AND (lease_expires_at IS NULL OR lease_expires_at <= {now}) \
             AND NOT EXISTS (SELECT 1 FROM sessions_nodes \
             JOIN sessions ON sessions.id = sessions_nodes.session_id \
             WHERE sessions_nodes.node_id = nodes.id AND sessions.retired_at IS NULL)",
        )
        .column()
        .await?;
    Ok(ids.into_iter().map(i64::from).collect())
}

/// The pool from which a node was lent last: the original forgets it when it deprovisions.
pub async fn last_pool_of_node(tx: &mut Tx, node_id: i64) -> Result<Option<String>, DbError> {
    tx.query("SELECT pool FROM sessions_nodes WHERE node_id = $1 ORDER BY session_id DESC LIMIT 1")
        .bind(node_id)
        .scalar()
        .await
}

/// The highest number of a session; 0 when there is none.
pub async fn last_session_id(tx: &mut Tx) -> Result<i64, DbError> {
    let last = tx
        .query("SELECT max(id) FROM sessions")
        .scalar::<Option<i32>>()
        .await?;
    Ok(last.flatten().map_or(0, i64::from))
}
