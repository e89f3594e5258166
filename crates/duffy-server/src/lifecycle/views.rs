//! Makes the API's types from rows.

use chrono::TimeDelta;
use duffy_api::{
    HIDDEN, Node, NodeState, Pool, PoolConcise, PoolDrained, PoolFailing, PoolLevels, Session,
    SessionNode, Tenant,
};

use serde_json::{Map, Value};

use crate::context::Ctx;
use crate::db::nodes::{self, NodeRow};
use crate::db::pools::{self, PoolStateRow};
use crate::db::sessions::{self, SessionNodeRow, SessionRow, WholeSession};
use crate::db::tenants::{self, TenantRow};
use crate::db::{DbError, Tx};
use crate::lifecycle::pools::configured_pools;

/// Returns how many nodes a tenant may hold.
pub fn effective_quota(ctx: &Ctx, tenant: &TenantRow) -> i64 {
    tenant
        .node_quota
        .map_or(i64::from(ctx.defaults.node_quota), i64::from)
}

/// Returns how long a tenant's session lasts at first.
pub fn effective_lifetime(ctx: &Ctx, tenant: &TenantRow) -> TimeDelta {
    tenant
        .session_lifetime
        .map_or(ctx.defaults.session_lifetime, |lifetime| lifetime.0)
}

/// Returns how long a tenant's session can last.
pub fn effective_lifetime_max(ctx: &Ctx, tenant: &TenantRow) -> TimeDelta {
    tenant
        .session_lifetime_max
        .map_or(ctx.defaults.session_lifetime_max, |lifetime| lifetime.0)
}

/// Returns a tenant without its secrets.
pub fn tenant(ctx: &Ctx, row: &TenantRow) -> Tenant {
    Tenant {
        retired_at: row.retired_at.map(|time| time.0),
        active: row.retired_at.is_none(),
        created_at: row.created_at.0,
        name: row.name.clone(),
        is_admin: row.is_admin,
        ssh_key: HIDDEN.to_owned(),
        node_quota: row.node_quota.map(i64::from),
        session_lifetime: row.session_lifetime.map(|lifetime| lifetime.0),
        session_lifetime_max: row.session_lifetime_max.map(|lifetime| lifetime.0),
        id: row.id,
        effective_node_quota: effective_quota(ctx, row),
        effective_session_lifetime: effective_lifetime(ctx, row),
        effective_session_lifetime_max: effective_lifetime_max(ctx, row),
    }
}

/// Returns the state that the API shows. As in the original, a node whose session has ended is shown as deployed until
/// a worker has claimed it.
fn shown_state(row: &NodeRow) -> NodeState {
    let untouched = row.state.0 == NodeState::Deprovisioning
        && row.attempts == 0
        && row.repairs == 0
        && row.held_at.is_none();
    // The original clears the pool when it begins, and only a lent node has a specification.
    if untouched && row.pool.is_some() && row.data.0.contains_key("nodes_spec") {
        NodeState::Deployed
    } else {
        row.state.0
    }
}

/// Returns a node. Only operators see the cause of a failure: it quotes a playbook or a node, and may contain anything.
pub fn node(mut row: NodeRow, for_operators: bool) -> Node {
    if !for_operators {
        hide_cause(&mut row.data.0);
    }
    let state = shown_state(&row);
    Node {
        retired_at: row.retired_at.map(|time| time.0),
        active: row.retired_at.is_none(),
        created_at: row.created_at.0,
        hostname: row.hostname,
        ipaddr: row.ipaddr,
        comment: row.comment,
        pool: row.pool,
        reusable: row.reusable,
        data: row.data.0,
        id: row.id,
        state,
    }
}

/// The original's phrases for failures.
const FAILURES: [&str; 5] = [
    "contextualizing node failed",
    "decontextualizing node failed",
    "deprovisioning mechanism failed",
    "deprovisioning node failed",
    "provisioning node failed",
];

/// Reduces an error to what everybody may see: its time, and a fixed phrase.
fn hide_cause(data: &mut Map<String, Value>) {
    let Some(Value::Object(error)) = data.get_mut("error") else {
        return;
    };
    let detail = error.get("detail").and_then(Value::as_str).unwrap_or("");
    let phrase = FAILURES.iter().find(|phrase| detail.starts_with(**phrase));
    let phrase = Value::from(*phrase.unwrap_or(&"node failed"));
    error.retain(|name, _| name == "failed_at");
    error.insert("detail".into(), phrase);
}

/// Returns a session with its nodes. Their states are shown only while it runs.
pub fn session(
    ctx: &Ctx,
    row: SessionRow,
    owner: &TenantRow,
    nodes: impl IntoIterator<Item = SessionNodeRow>,
) -> Session {
    let active = row.retired_at.is_none();
    let nodes = nodes.into_iter().map(|row| {
        let node = row.node;
        let state = active.then(|| shown_state(&node));
        // The tenant of an ended session must not see the later data of the node.
        let mut data = if active { node.data } else { row.session_data };
        hide_cause(&mut data.0);
        SessionNode {
            hostname: node.hostname,
            ipaddr: node.ipaddr,
            comment: node.comment,
            pool: node.pool,
            reusable: node.reusable,
            data: data.0,
            id: node.id,
            state,
        }
    });
    Session {
        retired_at: row.retired_at.map(|time| time.0),
        active,
        created_at: row.created_at.0,
        id: row.id,
        expires_at: row.expires_at.map(|time| time.0),
        tenant: tenant(ctx, owner),
        data: row.data.0,
        nodes: nodes.collect(),
    }
}

/// Reads the tenant and the nodes of a session, and returns the session.
pub(crate) async fn read_session(
    ctx: &Ctx,
    tx: &mut Tx,
    row: SessionRow,
) -> Result<Session, DbError> {
    let owner = read_owner(tx, &row).await?;
    let nodes = sessions::list_nodes_of_session(tx, row.id).await?;
    Ok(session(ctx, row, &owner, nodes))
}

/// Reads the tenant of a session.
pub(crate) async fn read_owner(tx: &mut Tx, session: &SessionRow) -> Result<TenantRow, DbError> {
    let owner = tenants::find_tenant(tx, session.tenant_id).await?;
    owner.ok_or_else(|| DbError::Corrupt(format!("session {} belongs to no tenant", session.id)))
}

fn whole_session(ctx: &Ctx, whole: WholeSession) -> Session {
    session(ctx, whole.session, &whole.tenant, whole.nodes)
}

/// Lists the running sessions of one tenant or of all.
pub async fn list_sessions(ctx: &Ctx, tenant_id: Option<i64>) -> Result<Vec<Session>, DbError> {
    let list = async |mut tx| sessions::list_whole_sessions(&mut tx, tenant_id).await;
    let sessions = ctx.db.read(list).await?.into_iter();
    Ok(sessions.map(|whole| whole_session(ctx, whole)).collect())
}

/// Finds a session, retired or not.
pub async fn find_session(ctx: &Ctx, id: i64) -> Result<Option<Session>, DbError> {
    let find = async |mut tx| sessions::find_whole_session(&mut tx, id).await;
    let found = ctx.db.read(find).await?;
    Ok(found.map(|whole| whole_session(ctx, whole)))
}

/// Lists all nodes that are not retired.
pub async fn list_nodes(ctx: &Ctx) -> Result<Vec<Node>, DbError> {
    let list = async |mut tx| nodes::list_active_nodes(&mut tx).await;
    let rows = ctx.db.read(list).await?;
    Ok(rows.into_iter().map(|row| node(row, false)).collect())
}

/// How many nodes one statement reads.
const PAGE: i64 = 500;

/// Visits all nodes that are not retired, a page at a time: all rows together take many times the memory of the reply.
pub async fn visit_nodes(ctx: &Ctx, mut visit: impl FnMut(Node)) -> Result<(), DbError> {
    let mut last = 0;
    loop {
        let read = async |mut tx| nodes::list_active_nodes_after(&mut tx, last, PAGE).await;
        let rows = ctx.db.read(read).await?;
        let Some(row) = rows.last() else {
            return Ok(());
        };
        last = row.id;
        for row in rows {
            visit(node(row, false));
        }
    }
}

/// Finds a node, retired or not, as [`node`] returns it.
pub async fn find_node(ctx: &Ctx, id: i64, for_operators: bool) -> Result<Option<Node>, DbError> {
    let find = async |mut tx| nodes::find_node(&mut tx, id).await;
    let row = ctx.db.read(find).await?;
    Ok(row.map(|row| node(row, for_operators)))
}

/// Lists all tenants, retired ones too, or `only` this one.
pub async fn list_tenants(ctx: &Ctx, only: Option<i64>) -> Result<Vec<Tenant>, DbError> {
    let list = async |mut tx| tenants::list_tenants(&mut tx, only).await;
    let rows = ctx.db.read(list).await?;
    Ok(rows.iter().map(|row| tenant(ctx, row)).collect())
}

/// Finds a tenant, retired or not.
pub async fn find_tenant(ctx: &Ctx, id: i64) -> Result<Option<Tenant>, DbError> {
    Ok(list_tenants(ctx, Some(id)).await?.pop())
}

/// Lists the pools that are kept filled, in the order of the configuration.
pub fn list_pools(ctx: &Ctx) -> Vec<PoolConcise> {
    let concise = |pool: &duffy_config::Pool| {
        Some(PoolConcise {
            name: pool.name.clone(),
            fill_level: pool.fill_level?,
        })
    };
    configured_pools(ctx).filter_map(concise).collect()
}

/// The result of looking for a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PoolView {
    /// There is no such pool.
    Unknown,
    /// It is not kept filled: it is abstract, or has no fill level.
    Unfilled,
    /// The pool.
    Pool(Pool),
}

/// Finds a pool, and counts its nodes.
pub async fn find_pool(ctx: &Ctx, name: &str) -> Result<PoolView, DbError> {
    let Some(pools) = &ctx.config.nodepools else {
        return Ok(PoolView::Unknown);
    };
    let fill_level = match pools.get(name) {
        Some(pool) => pool.fill_level,
        None if pools.is_abstract(name) => None,
        None => return Ok(PoolView::Unknown),
    };
    let Some(fill_level) = fill_level else {
        return Ok(PoolView::Unfilled);
    };
    let read = async |mut tx| pools::count_nodes(&mut tx, name).await;
    let (counts, states) = ctx.db.read(read).await?;
    let level = |quantity| u64::try_from(quantity).unwrap_or(0);
    // As `shown_state`.
    let levels = PoolLevels {
        provisioning: level(counts.provisioning),
        ready: level(counts.ready),
        contextualizing: level(counts.contextualizing),
        deployed: level(counts.deployed + counts.released),
        deprovisioning: level(counts.deprovisioning - counts.released),
    };
    let drained = states.iter().find_map(|state| state.drained_at);
    Ok(PoolView::Pool(Pool {
        name: name.to_owned(),
        fill_level,
        levels,
        drained: drained.map(|since| PoolDrained { since: since.0 }),
        failing: states.iter().filter_map(failing).collect(),
    }))
}

/// Returns that a mechanism keeps failing. Only operators see why.
fn failing(state: &PoolStateRow) -> Option<PoolFailing> {
    Some(PoolFailing {
        work: state.work.0,
        failures: u32::try_from(state.failures).unwrap_or(0),
        failed_at: state.failed_at.map(|time| time.0),
        retry_at: state.retry_at?.0,
    })
}

/// Returns the number of the next session, if no other request comes first.
pub async fn next_session_id(ctx: &Ctx) -> Result<i64, DbError> {
    let last = async |mut tx| sessions::last_session_id(&mut tx).await;
    Ok(ctx.db.read(last).await? + 1)
}

/// Finds the node of a pool that is lent next, if no other request comes first.
pub async fn next_ready_node(ctx: &Ctx, pool: &str) -> Result<Option<Node>, DbError> {
    let next = async |mut tx| nodes::next_ready_node(&mut tx, pool).await;
    let row = ctx.db.read(next).await?;
    Ok(row.map(|row| node(row, false)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn everybody_sees_that_a_node_failed_and_nobody_why() {
        for (detail, shown) in [
            (
                "provisioning node failed: token=hunter2",
                "provisioning node failed",
            ),
            (
                "deprovisioning node failed, pool 'x' not found",
                "deprovisioning node failed",
            ),
            ("contextualizing node failed", "contextualizing node failed"),
            ("a former tenant's key may be on it: hunter2", "node failed"),
        ] {
            let error = json!({
                "failed_at": "2026-01-01", "detail": detail, "log": "hunter2", "more": {"x": "hunter2"}
            });
            let mut data = Map::new();
            data.insert("error".into(), error);
            hide_cause(&mut data);
            let expected = json!({"failed_at": "2026-01-01", "detail": shown});
            assert_eq!(data["error"], expected);
        }
    }
}
