//! Keeping a lease while the work under it runs, and ending the work when it fails.

use tokio_util::sync::CancellationToken;

#[cfg(feature = "tasks")]
use super::rules;
use crate::context::Ctx;
#[cfg(feature = "tasks")]
use crate::db::nodes::NodeRow;
use crate::db::{DbError, leases};
#[cfg(feature = "tasks")]
use crate::nodes::mechanism::{Mechanism, MechanismError, MechanismNode};

/// A new random lease.
pub fn new_lease() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// Renews a lease until dropped.
#[derive(Debug)]
pub struct LeaseKeeper {
    lost: CancellationToken,
    ended: CancellationToken,
}

impl LeaseKeeper {
    /// Starts to renew. The lease was just taken.
    pub fn start(ctx: &Ctx, lease: &str) -> Self {
        let keeper = Self {
            lost: CancellationToken::new(),
            ended: CancellationToken::new(),
        };
        let (ctx, lease) = (ctx.clone(), lease.to_owned());
        let (lost, ended) = (keeper.lost.clone(), keeper.ended.clone());
        tokio::spawn(async move {
            ended
                .run_until_cancelled_owned(renew(ctx, lease, lost))
                .await;
        });
        keeper
    }

    /// Is cancelled once the lease is lost: then somebody else may be at work already.
    pub fn lost(&self) -> &CancellationToken {
        &self.lost
    }
}

impl Drop for LeaseKeeper {
    fn drop(&mut self) {
        self.ended.cancel();
    }
}

async fn renew(ctx: Ctx, lease: String, lost: CancellationToken) {
    let length = ctx.policy.lease;
    let mut renewed = tokio::time::Instant::now();
    loop {
        // A third: two renewals may fail before the lease does.
        tokio::time::sleep(length / 3).await;
        let asked = tokio::time::Instant::now();
        let lease = &lease;
        let result = ctx
            .db
            .transaction(|mut tx| async move {
                let held = leases::renew_lease(&mut tx, lease, length.as_secs_f64()).await?;
                Ok::<_, DbError>((tx, held))
            })
            .await;
        match result {
            Ok(0) => {
                tracing::warn!(%lease, "lease lost to somebody else");
                lost.cancel();
                return;
            }
            Ok(_) => renewed = asked,
            Err(error) => {
                tracing::warn!(%lease, %error, "cannot renew lease");
                if renewed.elapsed() > length {
                    tracing::warn!(%lease, "lease lapsed");
                    lost.cancel();
                    return;
                }
            }
        }
    }
}

/// Work under a lease: what it is done with.
#[cfg(feature = "tasks")]
#[derive(Debug, Clone, Copy)]
pub struct Work<'a> {
    /// Of the pool.
    pub mechanism: &'a dyn Mechanism,
    /// The pool's name.
    pub pool: &'a str,
    /// The lease that the nodes are under.
    pub lease: &'a str,
}

/// A node as mechanisms see it.
#[cfg(feature = "tasks")]
pub(super) fn mechanism_node(node: &NodeRow) -> MechanismNode {
    MechanismNode {
        id: node.id,
        hostname: node.hostname.clone(),
        ipaddr: node.ipaddr.clone(),
        data: serde_json::Value::Object(node.data.0.clone()),
    }
}

/// Gives up on nodes whose work was begun too often without an end, because whoever did it
/// died each time. Returns the others.
#[cfg(feature = "tasks")]
pub(super) async fn give_up_on_hopeless(
    ctx: &Ctx,
    work: &Work<'_>,
    nodes: Vec<NodeRow>,
    what: &str,
) -> Result<Vec<NodeRow>, DbError> {
    let limit = i32::try_from(ctx.policy.attempts).unwrap_or(i32::MAX);
    let (hopeless, nodes): (Vec<_>, Vec<_>) =
        nodes.into_iter().partition(|node| node.attempts > limit);
    for node in hopeless {
        let detail = format!(
            "{what} node failed: it was begun {} times and never ended",
            node.attempts - 1
        );
        postpone_or_fail(ctx, work, &node, &detail, None).await?;
    }
    Ok(nodes)
}

/// Writes that a mechanism failed for all its nodes; or, if it was told to stop, hands the
/// lease back.
#[cfg(feature = "tasks")]
pub(super) async fn settle_failure(
    ctx: &Ctx,
    work: &Work<'_>,
    nodes: &[NodeRow],
    what: &str,
    error: &MechanismError,
) -> Result<(), DbError> {
    if matches!(error, MechanismError::Stopped) {
        tracing::info!(
            pool.name = work.pool,
            "{what} was stopped; handing the nodes back"
        );
        return ctx
            .db
            .transaction(|mut tx| async move {
                leases::hand_back_lease(&mut tx, work.lease).await?;
                Ok((tx, ()))
            })
            .await;
    }
    for node in nodes {
        let detail = format!("{what} node failed: {error}");
        postpone_or_fail(ctx, work, node, &detail, Some(error.log())).await?;
    }
    Ok(())
}

/// Ends an attempt that failed: the node is tried again after a pause, or given up when it
/// was tried often enough. Its data says why.
#[cfg(feature = "tasks")]
pub(super) async fn postpone_or_fail(
    ctx: &Ctx,
    work: &Work<'_>,
    node: &NodeRow,
    detail: &str,
    log: Option<&str>,
) -> Result<(), DbError> {
    let attempt = u32::try_from(node.attempts).unwrap_or(0);
    let policy = &ctx.policy;
    let mut data = node.data.clone();
    rules::record_error(&mut data.0, ctx.clock.now(), detail, log);
    let pause = (attempt < policy.attempts).then(|| {
        rules::back_off(
            attempt,
            policy.back_off_min,
            policy.back_off_max,
            rand::random(),
        )
    });
    let data = &data;
    let written = ctx
        .db
        .transaction(|mut tx| async move {
            let written = if let Some(pause) = pause {
                let seconds = pause.as_secs_f64();
                leases::postpone_node(&mut tx, node.id, work.lease, data, seconds).await?
            } else {
                // The pool lacks a node now.
                tx.wake_workers();
                leases::fail_node(&mut tx, node.id, work.lease, data).await?
            };
            Ok::<_, DbError>((tx, written))
        })
        .await?;
    let pool = work.pool;
    match (written, pause) {
        (false, _) => tracing::warn!(node.id, "failed, and the lease is lost"),
        (true, Some(pause)) => {
            let again_in_s = pause.as_secs();
            tracing::warn!(node.id, pool.name = pool, attempt, again_in_s, "{detail}");
        }
        (true, None) => tracing::error!(node.id, pool.name = pool, attempt, "{detail}; gave up"),
    }
    Ok(())
}
