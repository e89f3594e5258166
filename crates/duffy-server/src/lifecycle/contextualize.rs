//! From reserved nodes to a session: the tenant's key on each, failed nodes replaced, or all
//! of it undone.

use futures::future::join_all;
use tokio::time::Instant;

use super::lease::LeaseKeeper;
use super::nodes::ssh_target;
use super::reserve::{Reserved, ReservedNode, take_node};
use super::rules;
use super::session_error::SessionError;
use super::views;
use crate::context::Ctx;
use crate::db::{DbError, leases, nodes, sessions};

/// A node without the tenant's key, and why.
struct Failure {
    reserved: ReservedNode,
    cause: String,
}

/// Puts the tenant's key on all nodes at once. A node that fails is replaced by another ready
/// one, while there is any and time is left. Ends with the session granted, or all undone.
pub(super) async fn contextualize(
    ctx: &Ctx,
    reserved: Reserved,
    lease: &str,
) -> Result<duffy_api::Session, SessionError> {
    let keeper = LeaseKeeper::start(ctx, lease);
    // A replacement gets a second deadline's time, and no third one.
    let deadline = Instant::now() + ctx.policy.ssh_timeout;
    let Reserved {
        session,
        tenant,
        nodes: mut waiting,
    } = reserved;
    let mut done: Vec<ReservedNode> = Vec::new();
    while !waiting.is_empty() {
        let (good, failures) = install_keys(ctx, &tenant.ssh_key, waiting).await;
        done.extend(good);
        if failures.is_empty() {
            break;
        }
        if keeper.lost().is_cancelled() {
            return Err(SessionError::LeaseLost { id: session.id });
        }
        let causes: Vec<String> = failures
            .iter()
            .map(|failure| failure.cause.clone())
            .collect();
        let replaced = if Instant::now() < deadline {
            substitute(ctx, &session, &failures, lease).await
        } else {
            Ok(None)
        };
        match replaced {
            Ok(Some(replacements)) => waiting = replacements,
            Ok(None) => {
                undo(ctx, &session, done, failures, lease).await?;
                return Err(SessionError::ContextualizingFailed { causes });
            }
            Err(error) => {
                tracing::warn!(session.id, %error, "cannot replace failed nodes");
                undo(ctx, &session, done, failures, lease).await?;
                return Err(error.into());
            }
        }
    }
    deploy(ctx, session.id, lease, done.len()).await
}

async fn install_keys(
    ctx: &Ctx,
    keys: &str,
    nodes: Vec<ReservedNode>,
) -> (Vec<ReservedNode>, Vec<Failure>) {
    let each = nodes.into_iter().map(|reserved| async move {
        let Some(target) = ssh_target(&reserved.node) else {
            return Err(Failure {
                reserved,
                cause: "the node has no address".into(),
            });
        };
        let started = Instant::now();
        match ctx.ssh.install_keys(&target, keys).await {
            Ok(()) => {
                let duration_ms = started.elapsed().as_millis();
                tracing::debug!(node.id = reserved.node.id, duration_ms, "key installed");
                Ok(reserved)
            }
            Err(error) => {
                tracing::warn!(node.id = reserved.node.id, %error, "cannot install key");
                Err(Failure {
                    reserved,
                    cause: error.to_string(),
                })
            }
        }
    });
    let mut good = Vec::new();
    let mut failures = Vec::new();
    for result in join_all(each).await {
        match result {
            Ok(reserved) => good.push(reserved),
            Err(failure) => failures.push(failure),
        }
    }
    (good, failures)
}

/// Marks nodes as failed and puts ready ones in their places. `None` when there are too few.
async fn substitute(
    ctx: &Ctx,
    session: &sessions::SessionRow,
    failures: &[Failure],
    lease: &str,
) -> Result<Option<Vec<ReservedNode>>, DbError> {
    ctx.db
        .transaction(|mut tx| async move {
            let mut replacements = Vec::new();
            for failure in failures {
                let spec = &failure.reserved.spec;
                let old = failure.reserved.node.id;
                let ready = nodes::take_ready_nodes(&mut tx, &spec.pool, 1).await?;
                let Some(node) = ready.into_iter().next() else {
                    return Ok((tx, None));
                };
                if !fail(ctx, &mut tx, failure, lease).await? {
                    return Ok((tx, None));
                }
                let node = take_node(ctx, &mut tx, spec, node, lease).await?;
                sessions::replace_session_node(&mut tx, session.id, old, node.id, &node.data)
                    .await?;
                tracing::info!(session.id, node.id, failed = old, "node replaced");
                replacements.push(ReservedNode {
                    node,
                    spec: spec.clone(),
                });
            }
            tx.wake_workers();
            Ok((tx, Some(replacements)))
        })
        .await
}

async fn fail(
    ctx: &Ctx,
    tx: &mut crate::db::Tx,
    failure: &Failure,
    lease: &str,
) -> Result<bool, DbError> {
    let node = &failure.reserved.node;
    let mut data = node.data.clone();
    let detail = format!("contextualizing node failed: {}", failure.cause);
    rules::record_error(&mut data.0, ctx.clock.now(), &detail, None);
    leases::fail_node(tx, node.id, lease, &data).await
}

/// The second transaction of a session: its nodes are deployed.
async fn deploy(
    ctx: &Ctx,
    id: i64,
    lease: &str,
    quantity: usize,
) -> Result<duffy_api::Session, SessionError> {
    ctx.db
        .transaction(|mut tx| async move {
            let session = sessions::lock_session(&mut tx, id).await?;
            let session = session.ok_or(SessionError::LeaseLost { id })?;
            let deployed = leases::finish_contextualizing(&mut tx, lease, id).await?;
            if session.retired_at.is_some() || deployed != quantity as u64 {
                // Retired, expired or rolled back meanwhile; whoever did it sees to the nodes.
                return Err(SessionError::LeaseLost { id });
            }
            let view = views::read_session(ctx, &mut tx, session).await?;
            Ok((tx, view))
        })
        .await
}

/// Takes the key off the good nodes, which are ready again then; retires the session.
async fn undo(
    ctx: &Ctx,
    session: &sessions::SessionRow,
    good: Vec<ReservedNode>,
    failures: Vec<Failure>,
    lease: &str,
) -> Result<(), DbError> {
    let cleaned = join_all(good.into_iter().map(|reserved| async move {
        let target = ssh_target(&reserved.node)?;
        match ctx.ssh.remove_keys(&target).await {
            Ok(()) => Some(reserved.node),
            Err(error) => {
                // Retiring the session hands it over to be deprovisioned.
                tracing::warn!(node.id = reserved.node.id, %error, "cannot take the key back");
                None
            }
        }
    }))
    .await;
    let cleaned: Vec<_> = cleaned.into_iter().flatten().collect();
    let (cleaned, failures) = (&cleaned, &failures);
    ctx.db
        .transaction(|mut tx| async move {
            for node in cleaned {
                let mut data = node.data.clone();
                data.0.shift_remove("nodes_spec");
                leases::return_to_ready(&mut tx, node.id, lease, &data).await?;
            }
            for failure in failures {
                fail(ctx, &mut tx, failure, lease).await?;
            }
            sessions::retire_session(&mut tx, session.id).await?;
            Ok((tx, ()))
        })
        .await
}
