//! The first transaction of a session: checks the quota, takes nodes, and writes the session, all or nothing.

use duffy_api::{NodesSpec, Session, SessionCreate};
use serde_json::json;
use tokio::time::Instant;

use crate::cause::Cause;
use crate::context::Ctx;
use crate::db::events::{self, Event};
use crate::db::idempotency::NewKey;
use crate::db::nodes::{self, NodeRow, PoolLock};
use crate::db::sessions::{self, NewSession, SessionRow};
use crate::db::tenants::{self, TenantRow};
use crate::db::transitions::{self, Change};
use crate::db::{DbError, Interval, JsonObject, Tx};
use crate::lifecycle::request::error::SessionError;
use crate::lifecycle::request::idempotency::{self, KeyState};
use crate::lifecycle::rules;
use crate::lifecycle::views;
use crate::node_state::Transition;

/// A session whose nodes wait for the tenant's key.
#[derive(Debug)]
pub(crate) struct Reserved {
    pub(crate) session: SessionRow,
    pub(crate) tenant: TenantRow,
    pub(crate) nodes: Vec<ReservedNode>,
    /// When the lease was requested: after the wait for the tenant's lock.
    pub(crate) leased_at: Instant,
    /// Whether the request has a key, so that the reply is stored.
    pub(crate) keyed: bool,
}

/// One of its nodes.
#[derive(Debug, Clone)]
pub(crate) struct ReservedNode {
    pub(crate) node: NodeRow,
    pub(crate) spec: NodesSpec,
}

/// A request for a session.
#[derive(Debug)]
pub(crate) struct SessionRequest<'a> {
    /// The tenant that gets the session.
    pub(crate) tenant_id: i64,
    /// The nodes.
    pub(crate) create: &'a SessionCreate,
    /// The key that identifies a repeated request.
    pub(crate) key: Option<&'a NewKey>,
}

/// How a reservation ends.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The nodes wait for the tenant's key.
    Reserved(Box<Reserved>),
    /// The session has no nodes. It is granted in the same transaction, so that a crash cannot leave it unfinished.
    Granted(Box<Session>),
    /// Another request with the same key was faster.
    Repeated,
}

/// Reserves the nodes of a request.
pub(crate) async fn reserve(
    ctx: &Ctx,
    request: &SessionRequest<'_>,
    lease: &str,
) -> Result<Outcome, SessionError> {
    let mut result = try_reserve(ctx, request, lease, IfLocked::GiveUp).await;
    // Enough nodes are ready, but other requests have locked them and may take or release them. Wait until they have
    // decided.
    if matches!(result, Err(ReserveError::HeldByOthers(_))) {
        result = try_reserve(ctx, request, lease, IfLocked::Wait).await;
    }
    match result {
        Ok(outcome) => Ok(outcome),
        Err(ReserveError::Repeated) => Ok(Outcome::Repeated),
        Err(ReserveError::HeldByOthers(error) | ReserveError::Refused(error)) => Err(error),
    }
}

/// Why a transaction did not reserve nodes.
#[derive(Debug, thiserror::Error)]
enum ReserveError {
    /// Enough nodes are ready, but other requests have locked them.
    #[error(transparent)]
    HeldByOthers(SessionError),
    /// Another request with the same key came first.
    #[error("another request has the same idempotency key")]
    Repeated,
    /// The request is refused.
    #[error(transparent)]
    Refused(#[from] SessionError),
}

impl From<DbError> for ReserveError {
    fn from(error: DbError) -> Self {
        ReserveError::Refused(error.into())
    }
}

fn cannot_reserve(spec: &NodesSpec) -> SessionError {
    SessionError::CannotReserve {
        quantity: spec.quantity,
        pool: spec.pool.clone(),
    }
}

/// What to do if other transactions have locked ready nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum IfLocked {
    GiveUp,
    Wait,
}

async fn try_reserve(
    ctx: &Ctx,
    request: &SessionRequest<'_>,
    lease: &str,
    if_locked: IfLocked,
) -> Result<Outcome, ReserveError> {
    let &SessionRequest {
        tenant_id,
        create,
        key,
    } = request;
    let write = async |mut tx| {
        let tenant = tenants::lock_tenant(&mut tx, tenant_id).await?;
        let tenant = tenant.ok_or(SessionError::UnknownTenant(tenant_id))?;
        // Checked before the quota: the tenant may already hold what a repeated request asks for.
        let before = match key {
            None => None,
            Some(key) => match idempotency::find_key_state(&mut tx, key).await? {
                KeyState::First(before) => before,
                KeyState::Second | KeyState::Answered(..) => {
                    return Err(ReserveError::Repeated);
                }
            },
        };
        if tenant.retired_at.is_some() {
            return Err(SessionError::InactiveTenant(tenant.name).into());
        }

        let mut data = JsonObject::default();
        data.0
            .insert("nodes_specs".into(), json!(create.nodes_specs));
        let lifetime = Interval(views::effective_lifetime(ctx, &tenant));
        let limited = !tenant.is_admin;
        let new = sessions::insert_session(&mut tx, tenant.id, &data, lifetime, limited).await?;
        if limited {
            check_quota(ctx, &new, &tenant, &create.nodes_specs)?;
        }
        let session = new.session;
        if let Some(key) = key
            && !idempotency::claim(&mut tx, key, before, session.id).await?
        {
            return Err(ReserveError::Repeated);
        }

        let taken = take_all(&mut tx, &create.nodes_specs, if_locked).await?;
        let keyed = key.is_some();
        if taken.is_empty() {
            events::record(&mut tx, granted(&session)).await?;
            let session = views::session(ctx, session, &tenant, []);
            if keyed {
                store_reply(&mut tx, &session).await?;
            }
            return Ok(Outcome::Granted(Box::new(session)));
        }
        let leased_at = Instant::now();
        let nodes = reserve_nodes(ctx, &mut tx, &session, taken, lease).await?;
        let reserved = Reserved {
            session,
            tenant,
            nodes,
            leased_at,
            keyed,
        };
        Ok(Outcome::Reserved(Box::new(reserved)))
    };
    ctx.db.transaction(write).await
}

/// Returns the event of a session that is granted.
pub(crate) fn granted(session: &SessionRow) -> Event {
    Event::of_session(Cause::Granted, session.id, session.tenant_id)
}

/// Stores the reply that grants a session, for a repeated request.
pub(crate) async fn store_reply(tx: &mut Tx, session: &Session) -> Result<(), SessionError> {
    let reply = idempotency::reply_of(session)?;
    crate::db::idempotency::write_reply(tx, session.id, &reply).await?;
    Ok(())
}

fn check_quota(
    ctx: &Ctx,
    new: &NewSession,
    tenant: &TenantRow,
    specs: &[NodesSpec],
) -> Result<(), SessionError> {
    let current = new.other_sessions;
    let quota = i64::from(ctx.defaults.session_quota);
    if !rules::within_quota(1, current, quota) {
        return Err(SessionError::TooManySessions { current, quota });
    }
    let requested = specs.iter().map(|spec| i64::from(spec.quantity)).sum();
    let current = new.other_nodes;
    let quota = views::effective_quota(ctx, tenant);
    if rules::within_quota(requested, current, quota) {
        Ok(())
    } else {
        Err(SessionError::QuotaExceeded {
            requested,
            current,
            quota,
        })
    }
}

/// Takes the nodes of each spec. Visits the pools by name, so that no two requests wait for each other in a circle. A
/// shortage is reported for the first spec of the request that has one.
async fn take_all<'s>(
    tx: &mut Tx,
    specs: &'s [NodesSpec],
    if_locked: IfLocked,
) -> Result<Vec<(&'s NodesSpec, NodeRow)>, ReserveError> {
    let mut order: Vec<(usize, &NodesSpec)> = specs.iter().enumerate().collect();
    order.sort_by_key(|(_, spec)| &spec.pool);
    let mut taken: Vec<(usize, &NodesSpec, NodeRow)> = Vec::new();
    let mut short: Option<(usize, ReserveError)> = None;
    for (index, spec) in order {
        let nodes = taken.iter().map(|(.., node)| node);
        let of_pool = nodes.filter(|node| node.pool.as_ref() == Some(&spec.pool));
        let before: Vec<i64> = of_pool.map(|node| node.id).collect();
        match take(tx, spec, &before, if_locked).await {
            Ok(nodes) => taken.extend(nodes.into_iter().map(|node| (index, spec, node))),
            Err(
                error @ (ReserveError::HeldByOthers(_)
                | ReserveError::Refused(SessionError::CannotReserve { .. })),
            ) => {
                if short.as_ref().is_none_or(|(first, _)| index < *first) {
                    short = Some((index, error));
                }
            }
            Err(error) => return Err(error),
        }
    }
    if let Some((_, error)) = short {
        return Err(error);
    }
    taken.sort_by_key(|(index, ..)| *index);
    let with_spec = |(_, spec, node)| (spec, node);
    Ok(taken.into_iter().map(with_spec).collect())
}

/// Above this quantity, count before locking.
const LOOK_FIRST: u32 = 20;

/// How often to retry after other requests release nodes.
const LOOKS: usize = 3;

async fn take(
    tx: &mut Tx,
    spec: &NodesSpec,
    before: &[i64],
    if_locked: IfLocked,
) -> Result<Vec<NodeRow>, ReserveError> {
    // Nodes of an earlier spec of this pool are locked by this transaction, but still ready.
    let quantity = spec
        .quantity
        .saturating_add(u32::try_from(before.len()).unwrap_or(u32::MAX));
    let fresh = |nodes: Vec<NodeRow>| -> Vec<NodeRow> {
        let nodes = nodes.into_iter().filter(|node| !before.contains(&node.id));
        nodes.take(spec.quantity as usize).collect()
    };
    let wanted = spec.quantity as usize;
    // Count before locking, so that a large request does not lock a whole pool for nothing.
    if quantity > LOOK_FIRST && nodes::count_ready(tx, &spec.pool).await? < i64::from(quantity) {
        return Err(cannot_reserve(spec).into());
    }
    if if_locked == IfLocked::Wait {
        nodes::lock_pool(tx, &spec.pool, PoolLock::Reserve).await?;
    }
    for _ in 0..LOOKS {
        let nodes = fresh(nodes::take_ready_nodes(tx, &spec.pool, quantity).await?);
        if nodes.len() == wanted {
            return Ok(nodes);
        }
        if nodes::count_ready(tx, &spec.pool).await? < i64::from(quantity) {
            return Err(cannot_reserve(spec).into());
        }
        if if_locked == IfLocked::GiveUp {
            return Err(ReserveError::HeldByOthers(cannot_reserve(spec)));
        }
        nodes::await_ready_nodes(tx, &spec.pool, quantity).await?;
    }
    Err(cannot_reserve(spec).into())
}

/// Reserves nodes that this transaction has locked, adds them to the session, and writes their specifications into their
/// rows.
async fn reserve_nodes(
    ctx: &Ctx,
    tx: &mut Tx,
    session: &SessionRow,
    taken: Vec<(&NodesSpec, NodeRow)>,
    lease: &str,
) -> Result<Vec<ReservedNode>, DbError> {
    let each = taken.into_iter();
    let (specs, nodes): (Vec<_>, Vec<_>) = each
        .map(|(spec, node)| (spec, with_spec(node, spec)))
        .unzip();
    let change = reservation(ctx, session, lease);
    let reserved = transitions::reserve(tx, session, &nodes, &change).await?;
    let mut reserved = reserved.ok_or_else(no_longer_ready)?;
    // In the order of the request.
    let order: Vec<i64> = nodes.iter().map(|node| node.id).collect();
    reserved.sort_by_key(|node| order.iter().position(|id| *id == node.id));
    let with_spec = |(node, spec): (NodeRow, &NodesSpec)| ReservedNode {
        node,
        spec: spec.clone(),
    };
    Ok(reserved.into_iter().zip(specs).map(with_spec).collect())
}

/// As [`reserve_nodes`], for a node that replaces `old`.
pub(crate) async fn replace_node(
    ctx: &Ctx,
    tx: &mut Tx,
    session: &SessionRow,
    old: &ReservedNode,
    new: NodeRow,
    lease: &str,
) -> Result<ReservedNode, DbError> {
    let spec = old.spec.clone();
    let node = with_spec(new, &spec);
    let change = reservation(ctx, session, lease);
    let reserved = transitions::apply_to(tx, Transition::Reserve, &node, &change).await?;
    let node = reserved.ok_or_else(no_longer_ready)?;
    sessions::replace_session_node(tx, session.id, old.node.id, node.id, &node.data).await?;
    Ok(ReservedNode { node, spec })
}

fn with_spec(mut node: NodeRow, spec: &NodesSpec) -> NodeRow {
    node.data.0.insert("nodes_spec".into(), json!(spec));
    node
}

fn reservation<'a>(ctx: &Ctx, session: &'a SessionRow, lease: &'a str) -> Change<'a> {
    Change {
        lease: Some(lease),
        lease_length: ctx.config.tasks.lease,
        data_of_rows: true,
        session: Some(session),
        ..Change::default()
    }
}

fn no_longer_ready() -> DbError {
    DbError::Corrupt("a locked node is no longer ready".into())
}
