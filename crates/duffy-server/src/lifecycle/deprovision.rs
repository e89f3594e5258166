//! Taking leased nodes out of use.

use std::collections::HashSet;

use futures::stream::{self, StreamExt};
use serde_json::json;

use super::lease;
use super::nodes::ssh_target;
use super::pools;
use super::rules;
use super::work::{self, AT_ONCE, Work};
use crate::context::Ctx;
use crate::db::leases::Failure;
use crate::db::nodes::NodeRow;
use crate::db::{DbError, JsonObject, leases, sessions};
use crate::nodes::mechanism::{MechanismError, match_deprovisioned};

/// Takes the tenant's key off nodes under one lease, runs the mechanism, and writes what
/// became of each: unused, done, to be tried again later, or failed.
pub async fn deprovision_nodes(
    ctx: &Ctx,
    work: &Work<'_>,
    nodes: Vec<NodeRow>,
) -> Result<(), DbError> {
    let nodes = work::give_up_on_hopeless(ctx, work, nodes, "deprovisioning").await?;
    if nodes.is_empty() {
        return Ok(());
    }
    let inputs: Vec<_> = nodes.iter().map(work::mechanism_node).collect();
    let stale = work
        .stop
        .run_until_cancelled(remove_keys(ctx, work, &nodes))
        .await;
    let results = match &stale {
        Some(_) => work.mechanism.deprovision(&inputs, work.stop).await,
        None => Err(MechanismError::Stopped),
    };
    let results = match results {
        Ok(results) => results,
        Err(error) => {
            return work::settle_failure(ctx, work, &nodes, "deprovisioning", &error).await;
        }
    };
    let stale = stale.unwrap_or_default();
    let mut result = Ok(());
    for (node, matched) in nodes.iter().zip(match_deprovisioned(&inputs, &results)) {
        // Of a node that was never made no result can tell; that the mechanism worked is enough.
        let never_made =
            !node.reusable && node.ipaddr.is_none() && !node.data.0.contains_key("provision");
        let written = if matched || never_made {
            finish(ctx, work, node, stale.contains(&node.id)).await
        } else {
            let detail = "deprovisioning node failed: no result names it";
            work::postpone_or_fail(ctx, work, node, detail, None).await
        };
        // What cannot be written of one node must not keep the others from being written.
        result = result.and(written);
    }
    result
}

/// After use a node may be in any condition, so that this fails is no obstacle; but it is
/// remembered of a node that is used again. Returns the nodes where it failed.
async fn remove_keys(ctx: &Ctx, work: &Work<'_>, nodes: &[NodeRow]) -> HashSet<i64> {
    let targets: Vec<_> = nodes
        .iter()
        .map(|node| (node.id, ssh_target(node)))
        .collect();
    let each = targets.into_iter().map(|(id, target)| async move {
        let target = target?;
        if !work.keeper.is_fresh() {
            return Some(id);
        }
        match ctx.ssh.remove_keys(&target).await {
            Ok(()) => None,
            Err(error) => {
                tracing::debug!(node.id = id, %error, "cannot take the tenant's key off the node");
                Some(id)
            }
        }
    });
    let failed = stream::iter(each).buffer_unordered(AT_ONCE);
    failed.filter_map(std::future::ready).collect().await
}

async fn finish(ctx: &Ctx, work: &Work<'_>, node: &NodeRow, stale: bool) -> Result<(), DbError> {
    let mut data = rules::without_ephemeral(&node.data.0);
    if stale {
        data.insert(rules::STALE_KEYS.into(), json!(true));
    }
    let (data, lease) = (&JsonObject(data), work.keeper.lease());
    work.keeper.expect_fewer(1);
    let write = || {
        ctx.db.transaction(|mut tx| async move {
            let written = leases::finish_deprovisioning(&mut tx, node, lease, data).await?;
            if written {
                pools::note_success(&mut tx, work).await?;
            }
            Ok::<_, DbError>((tx, written))
        })
    };
    if lease::persist(ctx, write).await? {
        tracing::info!(
            node.id,
            pool.name = work.pool,
            reusable = node.reusable,
            "node done"
        );
    } else {
        tracing::warn!(node.id, "deprovisioned, but the lease is lost");
    }
    Ok(())
}

/// Gives nodes their pools back that the original took them from: it forgets the pool of a
/// node that it deprovisions, and the session it was in still knows it. What nobody knows
/// the pool of is given up.
pub async fn restore_pools(ctx: &Ctx, nodes: Vec<NodeRow>, lease: &str) -> Result<(), DbError> {
    for node in &nodes {
        let mut data = node.data.clone();
        let detail = "the node belongs to no pool, and no session knows one; see to it by hand";
        rules::record_error(&mut data.0, ctx.clock.now(), detail, None);
        let failure = Failure {
            data: &data,
            detail,
            again_in: None,
            session: None,
        };
        ctx.db
            .transaction(|mut tx| async move {
                let pool = sessions::last_pool_of_node(&mut tx, node.id).await?;
                let restored = match pool {
                    Some(pool) => leases::set_pool(&mut tx, node.id, &pool).await?,
                    None => false,
                };
                if !restored {
                    leases::fail_node(&mut tx, node, lease, failure).await?;
                    tracing::error!(node.id, "{detail}");
                }
                Ok::<_, DbError>((tx, ()))
            })
            .await?;
    }
    lease::hand_back(ctx, lease).await
}
