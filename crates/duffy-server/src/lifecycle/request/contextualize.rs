//! Installs the tenant's key on reserved nodes, replaces nodes that fail, and grants the session or rolls it back.

use std::time::Duration;

use duffy_api::{Session, SessionNode};
use futures::stream::{self, StreamExt};
use serde_json::json;
use tokio::time::Instant;

use crate::actor;
use crate::context::Ctx;
use crate::db::nodes::NodeRow;
use crate::db::sessions::{SessionNodeRow, SessionRow};
use crate::db::tenants::TenantRow;
use crate::db::transitions::{self, Around, Change};
use crate::db::{DbError, Tx, idempotency, nodes, sessions};
use crate::lifecycle::nodes::ssh_target;
use crate::lifecycle::pools::repair;
use crate::lifecycle::request::error::SessionError;
use crate::lifecycle::request::reserve::{
    Reserved, ReservedNode, granted, replace_node, store_reply,
};
use crate::lifecycle::rules;
use crate::lifecycle::sessions::ending::end_session;
use crate::lifecycle::views;
use crate::lifecycle::work::lease::{self, LeaseKeeper};
use crate::node_state::Transition;

/// How many nodes one request connects to at the same time.
const AT_ONCE: usize = 64;
/// How often failed nodes are replaced in one request. After more failures, the fault is probably Duffy's own, for
/// example its key, and no node should fail for that.
const REPLACEMENTS: usize = 2;

/// A node on which the tenant's key could not be installed, and why.
struct InstallFailure {
    reserved: ReservedNode,
    cause: String,
    /// The fault is Duffy's own, so the node is unharmed.
    unharmed: bool,
}

/// Installs the tenant's key on all nodes at the same time. Replaces a node that fails by another ready one, if there
/// is one and time is left. Grants the session or rolls it back.
pub(crate) async fn contextualize(
    ctx: &Ctx,
    reserved: Reserved,
    keeper: &LeaseKeeper,
) -> Result<Session, SessionError> {
    // Work under a lease must end before the lease does, even if many clients send requests.
    let ctx = &ctx.reserved();
    let id = reserved.session.id;
    let granted = install_and_deploy(ctx, reserved, keeper);
    let result = if let Some(result) = ctx.halt.run_until_cancelled(granted).await {
        result
    } else {
        if let Err(error) = refuse(ctx, id).await {
            tracing::warn!(session.id = id, %error, "cannot undo a session; its lease will lapse");
        }
        Err(SessionError::Stopping)
    };
    if result.is_err() {
        // Nodes of a session that was retired meanwhile are still under the lease, so that nobody touched them while
        // their key was being installed.
        keeper.expect_fewer(usize::MAX);
        if let Err(error) = lease::hand_back(ctx, keeper.lease()).await {
            tracing::warn!(%error, "cannot hand nodes back; their lease will lapse");
        }
    }
    result
}

async fn install_and_deploy(
    ctx: &Ctx,
    reserved: Reserved,
    keeper: &LeaseKeeper,
) -> Result<Session, SessionError> {
    let deadline = Instant::now() + ctx.config.ssh.timeout;
    let Reserved {
        session,
        tenant,
        nodes: mut waiting,
        leased_at: _,
        keyed,
    } = reserved;
    let mut done: Vec<ReservedNode> = Vec::new();
    for round in 0.. {
        let installed = install_on_nodes(ctx, &tenant.ssh_key, waiting, keeper);
        let lost = Err(SessionError::LeaseLost(session.id));
        let Some((good, failures)) = keeper.lost().run_until_cancelled(installed).await else {
            return lost;
        };
        done.extend(good);
        if failures.is_empty() {
            break;
        }
        if !keeper.is_fresh() {
            return lost;
        }
        let replaceable = round < REPLACEMENTS
            && Instant::now() < deadline
            && failures.iter().all(|failure| !failure.unharmed);
        let replaced = if replaceable {
            substitute(ctx, &session, &failures, keeper.lease()).await
        } else {
            Ok(None)
        };
        match replaced {
            Ok(Some(replacements)) => waiting = replacements,
            refused => {
                undo(ctx, &session, done, failures, keeper).await?;
                refused?;
                return Err(SessionError::ContextualizingFailed);
            }
        }
    }
    done.sort_by_key(|reserved| reserved.node.id);
    let prepared = Prepared {
        id: session.id,
        tenant,
        nodes: done.into_iter().map(|reserved| reserved.node).collect(),
        keyed,
    };
    deploy(ctx, &prepared, keeper).await
}

async fn install_on_nodes(
    ctx: &Ctx,
    keys: &str,
    nodes: Vec<ReservedNode>,
    keeper: &LeaseKeeper,
) -> (Vec<ReservedNode>, Vec<InstallFailure>) {
    let each = nodes.into_iter().map(|reserved| async move {
        let fail = |reserved, cause: String, unharmed| InstallFailure {
            reserved,
            cause,
            unharmed,
        };
        let Some(target) = ssh_target(&reserved.node) else {
            return Err(fail(reserved, "the node has no address".into(), false));
        };
        // This process may have been stopped for longer than the lease.
        if !keeper.is_fresh() {
            return Err(fail(reserved, "the lease is lost".into(), true));
        }
        let started = Instant::now();
        match ctx.ssh.install_keys(&target, keys).await {
            Ok(()) => {
                let duration_ms = started.elapsed().as_millis();
                tracing::debug!(node.id = reserved.node.id, duration_ms, "key installed");
                Ok(reserved)
            }
            Err(error) => {
                tracing::warn!(node.id = reserved.node.id, %error, "cannot install key");
                let unharmed = error.is_own_fault();
                Err(fail(reserved, error.to_string(), unharmed))
            }
        }
    });
    let mut results = stream::iter(each).buffer_unordered(AT_ONCE);
    let (mut good, mut failures) = (Vec::new(), Vec::new());
    while let Some(result) = results.next().await {
        match result {
            Ok(reserved) => good.push(reserved),
            Err(failure) => failures.push(failure),
        }
    }
    (good, failures)
}

/// Marks nodes as failed and replaces them by ready ones. `None`, without changes, when there are too few.
async fn substitute(
    ctx: &Ctx,
    session: &SessionRow,
    failures: &[InstallFailure],
    lease: &str,
) -> Result<Option<Vec<ReservedNode>>, DbError> {
    // The error `None` rolls back: there is no replacement, or the session or its nodes have changed.
    let write = async |mut tx: Tx| -> Result<_, Option<DbError>> {
        let current = sessions::lock_session(&mut tx, session.id).await?;
        if current.is_none_or(|current| current.retired_at.is_some()) {
            return Err(None);
        }
        let mut replacements = Vec::new();
        for failure in failures {
            let old = &failure.reserved;
            let ready = nodes::take_ready_nodes(&mut tx, &old.spec.pool, 1).await?;
            let node = ready.into_iter().next().ok_or(None)?;
            if !fail(ctx, &mut tx, session, failure, lease).await? {
                return Err(None);
            }
            let new = replace_node(ctx, &mut tx, session, old, node, lease).await?;
            let node = &new.node;
            tracing::info!(session.id, node.id, failed = old.node.id, "node replaced");
            replacements.push(new);
        }
        tx.wake_workers();
        Ok(replacements)
    };
    match ctx.db.transaction(write).await {
        Ok(replacements) => Ok(Some(replacements)),
        Err(None) => Ok(None),
        Err(Some(error)) => Err(error),
    }
}

/// Marks a node as failed. False when the lease is lost.
async fn fail(
    ctx: &Ctx,
    tx: &mut Tx,
    session: &SessionRow,
    failure: &InstallFailure,
    lease: &str,
) -> Result<bool, DbError> {
    let node = &failure.reserved.node;
    let mut data = node.data.clone();
    let detail = format!("contextualizing node failed: {}", failure.cause);
    rules::record_error(&mut data.0, ctx.clock.now(), &detail, None);
    // It may have the key even so, if its answer was lost.
    data.0.insert(rules::STALE_KEYS.into(), json!(true));
    let change = Change {
        lease: Some(lease),
        pause: repair::pause_before(&ctx.config.tasks, node.repairs),
        data: Some(&data),
        session: Some(session),
        detail: Some(&detail),
        ..Change::default()
    };
    let failed = transitions::apply_to(tx, Transition::Fail, node, &change).await?;
    Ok(failed.is_some())
}

/// How often to try the second transaction if the database becomes unavailable.
const DEPLOY_TRIES: u32 = 5;

/// A session whose nodes all have the tenant's key.
struct Prepared {
    id: i64,
    tenant: TenantRow,
    nodes: Vec<NodeRow>,
    keyed: bool,
}

/// Runs the second transaction of a session, which deploys its nodes.
async fn deploy(
    ctx: &Ctx,
    prepared: &Prepared,
    keeper: &LeaseKeeper,
) -> Result<Session, SessionError> {
    let id = prepared.id;
    keeper.expect_fewer(prepared.nodes.len());
    let mut tries = 0;
    loop {
        tries += 1;
        match try_deploy(ctx, prepared, keeper.lease()).await {
            // It may have been committed even so. A retry finds out.
            Err(SessionError::Db(DbError::Unavailable(error))) if tries < DEPLOY_TRIES => {
                tracing::warn!(session.id = id, %error, "cannot tell whether it is granted");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            Err(error @ SessionError::Db(_)) => {
                give_up(ctx, id);
                return Err(error);
            }
            result => return result,
        }
    }
}

/// Can be retried: a session whose nodes are all deployed is granted.
async fn try_deploy(ctx: &Ctx, prepared: &Prepared, lease: &str) -> Result<Session, SessionError> {
    let Prepared {
        id,
        tenant,
        nodes,
        keyed,
    } = prepared;
    let lost = || SessionError::LeaseLost(*id);
    let write = async |mut tx| {
        let session = sessions::lock_session(&mut tx, *id).await?;
        // The session may have ended meanwhile.
        let session = session.filter(|session| session.retired_at.is_none());
        let session = session.ok_or_else(lost)?;
        let change = Change {
            lease: Some(lease),
            session: Some(&session),
            ..Change::default()
        };
        let around = Around {
            before: None,
            after: Some(granted(&session)),
        };
        let deploy = Transition::Deploy;
        let deployed = transitions::apply_to_all(&mut tx, deploy, nodes, &change, around).await?;
        let of_session = |node: NodeRow| SessionNodeRow {
            session_id: *id,
            session_data: node.data.clone(),
            node,
        };
        let nodes = deployed.ok_or_else(lost)?.into_iter().map(of_session);
        let view = views::session(ctx, session, tenant, nodes);
        if *keyed {
            store_reply(&mut tx, &view).await?;
        }
        Ok(view)
    };
    match ctx.db.transaction(write).await {
        // Perhaps it was committed before, and only the answer was lost.
        Err(SessionError::LeaseLost(_)) => {
            let view = views::find_session(ctx, *id).await?.ok_or_else(lost)?;
            let is_deployed =
                |node: &SessionNode| node.state == Some(duffy_api::NodeState::Deployed);
            let granted = view.active
                && view.nodes.len() == nodes.len()
                && view.nodes.iter().all(is_deployed);
            granted.then_some(view).ok_or_else(lost)
        }
        result => result,
    }
}

/// Retires a session after its request was refused. The session stays if it was granted even so and a repeated request
/// received the reply.
async fn refuse(ctx: &Ctx, id: i64) -> Result<(), DbError> {
    let write = async |mut tx| {
        sessions::lock_session(&mut tx, id).await?;
        if idempotency::delete_unfetched_of_session(&mut tx, id).await? {
            end_session(&mut tx, id, Transition::Refuse).await?;
        }
        Ok(())
    };
    ctx.db.transaction(write).await
}

/// As `refuse`, once the database is available again.
fn give_up(ctx: &Ctx, id: i64) {
    let ctx = ctx.clone();
    ctx.tasks.clone().spawn(actor::carry(async move {
        if let Err(error) = lease::persist(&ctx, || refuse(&ctx, id)).await {
            tracing::error!(session.id = id, %error, "cannot retire a session that was refused");
        }
    }));
}

/// Takes the key off the good nodes, makes them ready again, and retires the session.
async fn undo(
    ctx: &Ctx,
    session: &SessionRow,
    good: Vec<ReservedNode>,
    failures: Vec<InstallFailure>,
    keeper: &LeaseKeeper,
) -> Result<(), DbError> {
    let each = good.into_iter().map(|reserved| async move {
        let target = ssh_target(&reserved.node)?;
        if !keeper.is_fresh() {
            return None;
        }
        match ctx.ssh.remove_keys(&target).await {
            Ok(()) => Some(reserved.node),
            Err(error) => {
                // It is deprovisioned with the session's end.
                tracing::warn!(node.id = reserved.node.id, %error, "cannot take the key back");
                None
            }
        }
    });
    let mut clean: Vec<_> = stream::iter(each)
        .buffer_unordered(AT_ONCE)
        .filter_map(std::future::ready)
        .collect()
        .await;
    let (unharmed, failed): (Vec<_>, Vec<_>) =
        failures.into_iter().partition(|failure| failure.unharmed);
    clean.extend(unharmed.into_iter().map(|failure| failure.reserved.node));
    for node in &mut clean {
        node.data.0.shift_remove("nodes_spec");
    }
    keeper.expect_fewer(usize::MAX);
    let (clean, failed, lease) = (&clean, &failed, keeper.lease());
    // If the database is unavailable, the leases lapse, and a worker rolls the session back.
    let write = async |mut tx| {
        // The session is locked before its nodes, as everywhere.
        sessions::lock_session(&mut tx, session.id).await?;
        let change = Change {
            lease: Some(lease),
            data_of_rows: true,
            session: Some(session),
            ..Change::default()
        };
        transitions::apply_to_each(&mut tx, Transition::Return, clean, &change).await?;
        for failure in failed {
            fail(ctx, &mut tx, session, failure, lease).await?;
        }
        end_session(&mut tx, session.id, Transition::Refuse).await?;
        Ok(())
    };
    ctx.db.transaction(write).await
}
