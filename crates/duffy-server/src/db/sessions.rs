//! The `sessions` and `sessions_nodes` tables.

use serde::Serialize;

use super::events::{self, Event};
use super::query::{Joined, Statement, Table};
use super::tenants::TenantRow;
use super::{DbError, DbResult, Interval, JsonObject, Timestamp, Tx};
use crate::cause::Cause;
use crate::db::nodes::NodeRow;

/// A session's row.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct SessionRow {
    /// Number of the session.
    #[sqlx(try_from = "i32")]
    pub id: i64,
    /// Its tenant.
    #[sqlx(try_from = "i32")]
    pub tenant_id: i64,
    /// When it expires.
    pub expires_at: Option<Timestamp>,
    /// What the request asked for.
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

impl Table for SessionNodeRow {
    const KEY: &'static str = "session_id";
}

/// Finds a session by its number, retired ones too.
pub async fn find_session(tx: &mut Tx, id: i64) -> DbResult<Option<SessionRow>> {
    let sql = "SELECT {session_columns} FROM sessions WHERE id = $1";
    tx.fetch_optional(sql, &[&id]).await
}

/// As [`find_session`], and locks the session until this transaction ends.
pub async fn lock_session(tx: &mut Tx, id: i64) -> DbResult<Option<SessionRow>> {
    let sql = "SELECT {session_columns} FROM sessions WHERE id = $1 {for_update}";
    tx.fetch_optional(sql, &[&id]).await
}

/// Lists the running sessions.
pub async fn list_active_sessions(tx: &mut Tx) -> DbResult<Vec<SessionRow>> {
    let sql = "SELECT {session_columns} FROM sessions WHERE retired_at IS NULL ORDER BY id";
    tx.fetch_all(sql, &[]).await
}

/// Lists the nodes of the running sessions.
pub async fn list_nodes_of_active_sessions(tx: &mut Tx) -> DbResult<Vec<SessionNodeRow>> {
    // With CROSS JOIN, SQLite begins with the running sessions. Otherwise it reads the nodes of all past sessions.
    let sql = "SELECT sessions_nodes.session_id, sessions_nodes.data AS session_data, \
        {node_columns} FROM sessions CROSS JOIN sessions_nodes \
        JOIN nodes ON nodes.id = sessions_nodes.node_id \
        WHERE sessions_nodes.session_id = sessions.id AND sessions.retired_at IS NULL \
        ORDER BY nodes.id";
    tx.fetch_all(sql, &[]).await
}

/// A session with its tenant and its nodes.
#[derive(Debug, Clone)]
pub struct WholeSession {
    /// The session.
    pub session: SessionRow,
    /// Its tenant. The secrets are empty.
    pub tenant: TenantRow,
    /// Its nodes, by number.
    pub nodes: Vec<SessionNodeRow>,
}

/// A session with its tenant and one of its nodes, or with none.
#[derive(sqlx::FromRow)]
struct SessionLine {
    #[sqlx(try_from = "i32")]
    of_session: i64,
    #[sqlx(try_from = "i32")]
    of_tenant: i64,
    session_expires_at: Option<Timestamp>,
    session_request: JsonObject,
    session_created_at: Timestamp,
    session_retired_at: Option<Timestamp>,
    tenant_name: String,
    tenant_is_admin: bool,
    tenant_quota: Option<i32>,
    tenant_lifetime: Option<Interval>,
    tenant_lifetime_max: Option<Interval>,
    tenant_created_at: Timestamp,
    tenant_retired_at: Option<Timestamp>,
    #[sqlx(flatten)]
    node: Joined<SessionNodeRow>,
}

/// Lists the running sessions of one tenant or of all.
pub async fn list_whole_sessions(
    tx: &mut Tx,
    tenant_id: Option<i64>,
) -> DbResult<Vec<WholeSession>> {
    let sql = "SELECT {whole_session_columns}, {node_columns} {from_whole_sessions} \
        WHERE sessions.retired_at IS NULL \
        AND (CAST($1 AS BIGINT) IS NULL OR sessions.tenant_id = $1) \
        ORDER BY sessions.id, nodes.id";
    Ok(whole_sessions(tx.fetch_all(sql, &[&tenant_id]).await?))
}

/// Finds a session by its number, retired ones too.
pub async fn find_whole_session(tx: &mut Tx, id: i64) -> DbResult<Option<WholeSession>> {
    let sql = "SELECT {whole_session_columns}, {node_columns} {from_whole_sessions} \
        WHERE sessions.id = $1 ORDER BY nodes.id";
    Ok(whole_sessions(tx.fetch_all(sql, &[&id]).await?).pop())
}

fn whole_sessions(lines: Vec<SessionLine>) -> Vec<WholeSession> {
    let mut sessions: Vec<WholeSession> = Vec::new();
    for line in lines {
        let node = line.node.0;
        match sessions.last_mut() {
            Some(last) if last.session.id == line.of_session => last.nodes.extend(node),
            _ => sessions.push(WholeSession {
                session: SessionRow {
                    id: line.of_session,
                    tenant_id: line.of_tenant,
                    expires_at: line.session_expires_at,
                    data: line.session_request,
                    created_at: line.session_created_at,
                    retired_at: line.session_retired_at,
                },
                tenant: TenantRow {
                    id: line.of_tenant,
                    name: line.tenant_name,
                    is_admin: line.tenant_is_admin,
                    ssh_key: String::new(),
                    api_key: String::new(),
                    api_key_digest: None,
                    node_quota: line.tenant_quota,
                    session_lifetime: line.tenant_lifetime,
                    session_lifetime_max: line.tenant_lifetime_max,
                    created_at: line.tenant_created_at,
                    retired_at: line.tenant_retired_at,
                },
                nodes: Vec::from_iter(node),
            }),
        }
    }
    sessions
}

/// Lists the nodes of a session.
pub async fn list_nodes_of_session(tx: &mut Tx, session_id: i64) -> DbResult<Vec<SessionNodeRow>> {
    let sql = "SELECT sessions_nodes.session_id, sessions_nodes.data AS session_data, \
        {node_columns} FROM sessions_nodes JOIN nodes ON nodes.id = sessions_nodes.node_id \
        WHERE sessions_nodes.session_id = $1 ORDER BY nodes.id";
    tx.fetch_all(sql, &[&session_id]).await
}

/// Lists the nodes of a session that are in use, and locks them until this transaction ends.
pub async fn lock_nodes_in_use(tx: &mut Tx, session_id: i64) -> DbResult<Vec<NodeRow>> {
    let sql = "SELECT {node_columns} FROM sessions_nodes \
        JOIN nodes ON nodes.id = sessions_nodes.node_id \
        WHERE sessions_nodes.session_id = $1 AND nodes.retired_at IS NULL \
        AND nodes.state IN ('contextualizing', 'deployed') ORDER BY nodes.id {for_update_of nodes}";
    tx.fetch_all(sql, &[&session_id]).await
}

/// As [`list_nodes_of_session`], and locks the nodes until this transaction ends.
pub async fn lock_nodes_of_session(tx: &mut Tx, session_id: i64) -> DbResult<Vec<SessionNodeRow>> {
    let sql = "SELECT sessions_nodes.session_id, sessions_nodes.data AS session_data, \
        {node_columns} FROM sessions_nodes JOIN nodes ON nodes.id = sessions_nodes.node_id \
        WHERE sessions_nodes.session_id = $1 ORDER BY nodes.id {for_update_of nodes}";
    tx.fetch_all(sql, &[&session_id]).await
}

/// The longest life of a session, in seconds: seven thousand years.
const MAX_LIFETIME: f64 = 7_000.0 * 365.0 * 86_400.0;

/// A session that was added, and what its tenant had before.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct NewSession {
    /// The session.
    #[sqlx(flatten)]
    pub session: SessionRow,
    /// How many other sessions of the tenant are running; 0 if they are not counted.
    pub other_sessions: i64,
    /// How many nodes they have; 0 if they are not counted.
    pub other_nodes: i64,
}

/// Adds a session that ends after its lifetime. With `counts`, counts what the tenant has. The counts are exact if this
/// transaction has locked the tenant before.
pub async fn insert_session(
    tx: &mut Tx,
    tenant_id: i64,
    data: &JsonObject,
    lifetime: Interval,
    counts: bool,
) -> DbResult<NewSession> {
    // Neither engine counts beyond the year 9999.
    let seconds = duffy_api::duration::to_seconds(lifetime.0).min(MAX_LIFETIME);
    // As a join, the sum of the nodes may read the whole table.
    let sql = "INSERT INTO sessions (tenant_id, data, created_at, expires_at) \
        VALUES ($1, $2, {now}, {now + $3}) RETURNING {session_columns}, \
        (SELECT count(*) FROM sessions AS other WHERE $4 AND other.tenant_id = $1 \
        AND other.retired_at IS NULL AND other.id <> sessions.id) AS other_sessions, \
        (SELECT CAST(coalesce(sum((SELECT count(*) FROM sessions_nodes \
        WHERE session_id = other.id)), 0) AS BIGINT) FROM sessions AS other \
        WHERE $4 AND other.tenant_id = $1 AND other.retired_at IS NULL) AS other_nodes";
    tx.fetch_one(sql, &[&tenant_id, &data, &seconds, &counts])
        .await
}

/// Nodes as [`insert_nodes`] takes them.
#[derive(Debug)]
pub(super) struct NewNodes {
    session_id: i64,
    nodes: String,
}

#[derive(Debug, Serialize)]
struct NewNode<'a> {
    id: i64,
    pool: Option<&'a str>,
    data: String,
}

/// Returns nodes that [`insert_nodes`] adds to a session.
pub(super) fn new_nodes(session: &SessionRow, nodes: &[NodeRow]) -> DbResult<NewNodes> {
    let each = nodes.iter().map(|node| {
        let data = node.data.to_text();
        Ok(NewNode {
            id: node.id,
            pool: node.pool.as_deref(),
            data: data.map_err(|error| DbError::Corrupt(error.to_string()))?,
        })
    });
    let rows: Vec<_> = each.collect::<DbResult<_>>()?;
    let nodes =
        serde_json::to_string(&rows).map_err(|error| DbError::Corrupt(error.to_string()))?;
    Ok(NewNodes {
        session_id: session.id,
        nodes,
    })
}

/// Returns the statement that adds nodes to a session.
pub(super) fn insert_nodes(new: &NewNodes) -> Statement<'_> {
    let sql = "INSERT INTO sessions_nodes (session_id, node_id, pool, data) \
        SELECT $1, CAST(value ->> 'id' AS INTEGER), value ->> 'pool', \
        {as_json value->>'data'} FROM {json_rows $2}";
    Statement {
        sql,
        values: vec![&new.session_id, &new.nodes],
    }
}

/// Replaces a node of a session. False when the session has no such node.
pub async fn replace_session_node(
    tx: &mut Tx,
    session_id: i64,
    old: i64,
    new: i64,
    data: &JsonObject,
) -> DbResult<bool> {
    let sql =
        "UPDATE sessions_nodes SET node_id = $3, data = $4 WHERE session_id = $1 AND node_id = $2";
    tx.changes(sql, &[&session_id, &old, &new, &data]).await
}

/// Sets when a session expires.
pub async fn set_expiry(tx: &mut Tx, session: &SessionRow, expires_at: Timestamp) -> DbResult<()> {
    let sql = "UPDATE sessions SET expires_at = $2 WHERE id = $1";
    tx.execute(sql, &[&session.id, &expires_at]).await?;
    let detail = format!("expires at {}", expires_at.0.to_rfc3339());
    let event = Event::of_session(Cause::Extended, session.id, session.tenant_id);
    events::record(tx, event.with_detail(detail)).await
}

/// Retires a session, with a tenant only if it is the tenant's. `None` when there is no such running session. Its nodes
/// stay as they are.
pub async fn retire_session(
    tx: &mut Tx,
    id: i64,
    tenant_id: Option<i64>,
) -> DbResult<Option<SessionRow>> {
    let sql = "UPDATE sessions SET retired_at = {now} WHERE id = $1 AND retired_at IS NULL \
        AND (CAST($2 AS BIGINT) IS NULL OR tenant_id = $2) RETURNING {session_columns}";
    tx.fetch_optional(sql, &[&id, &tenant_id]).await
}

/// Lists up to `limit` running sessions that have expired.
pub async fn list_expired_sessions(tx: &mut Tx, limit: u32) -> DbResult<Vec<i64>> {
    let sql = "SELECT id FROM sessions WHERE retired_at IS NULL AND expires_at < {now} \
        ORDER BY expires_at LIMIT $1";
    tx.ids(sql, &[&i64::from(limit)]).await
}

/// Locks a running session that has expired. False when it has not, or another transaction has locked it.
pub async fn lock_expired_session(tx: &mut Tx, id: i64) -> DbResult<bool> {
    let sql = "SELECT id FROM sessions WHERE id = $1 AND retired_at IS NULL \
        AND expires_at < {now} {skip_locked}";
    let row = tx.scalar::<i32>(sql, &[&id]).await?;
    Ok(row.is_some())
}

/// Lists sessions that are not granted yet and whose request died.
pub async fn list_abandoned_sessions(tx: &mut Tx) -> DbResult<Vec<i64>> {
    // A node of such a session waits for its key, and its lease has lapsed. CROSS JOIN for SQLite and `+` for
    // PostgreSQL make them begin with the running sessions. Otherwise they read the past sessions of reused nodes.
    let sql = "SELECT DISTINCT sessions.id FROM sessions CROSS JOIN sessions_nodes \
        WHERE sessions_nodes.session_id = sessions.id AND sessions.retired_at IS NULL \
        AND +sessions_nodes.node_id IN (SELECT id FROM nodes \
        WHERE state = 'contextualizing' AND retired_at IS NULL \
        AND (lease_expires_at IS NULL OR lease_expires_at <= {now})) ORDER BY sessions.id";
    tx.ids(sql, &[]).await
}

/// Lists nodes in use that belong to no running session and that nobody works on.
pub async fn list_orphans(tx: &mut Tx) -> DbResult<Vec<i64>> {
    // With NOT EXISTS, the engines read the past sessions of reused nodes.
    let sql = "SELECT id FROM nodes WHERE state IN ('contextualizing', 'deployed') \
        AND retired_at IS NULL AND (lease_expires_at IS NULL OR lease_expires_at <= {now}) \
        AND id NOT IN (SELECT sessions_nodes.node_id FROM sessions CROSS JOIN sessions_nodes \
        WHERE sessions_nodes.session_id = sessions.id AND sessions.retired_at IS NULL)";
    tx.ids(sql, &[]).await
}

/// Finds the pool from which a node was last lent. The original clears the node's pool when it deprovisions.
pub async fn last_pool_of_node(tx: &mut Tx, node_id: i64) -> DbResult<Option<String>> {
    let sql = "SELECT pool FROM sessions_nodes WHERE node_id = $1 ORDER BY session_id DESC LIMIT 1";
    tx.scalar(sql, &[&node_id]).await
}

/// Finds the highest number of a session; 0 when there is none.
pub async fn last_session_id(tx: &mut Tx) -> DbResult<i64> {
    let sql = "SELECT max(id) FROM sessions";
    let last = tx.scalar::<Option<i32>>(sql, &[]).await?;
    Ok(last.flatten().map_or(0, i64::from))
}
