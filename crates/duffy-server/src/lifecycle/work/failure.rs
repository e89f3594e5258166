//! Ends attempts that failed: nodes are retried after a pause, or fail.

use std::sync::atomic::Ordering;

use super::backoff;
use super::job::Job;
use super::lease;
use crate::context::Ctx;
use crate::db::DbError;
use crate::db::nodes::NodeRow;
use crate::db::transitions::{self, Change};
use crate::lifecycle::pools::repair;
use crate::lifecycle::rules;
use crate::node_state::Transition;
use crate::nodes::mechanism::MechanismError;

/// Ends the work on nodes that began too often without an end, because the process died each time. Returns the others.
pub(crate) async fn fail_interrupted_too_often(
    ctx: &Ctx,
    work: &Job<'_>,
    nodes: Vec<NodeRow>,
) -> Result<Vec<NodeRow>, DbError> {
    let limit = i32::try_from(ctx.config.tasks.attempts).unwrap_or(i32::MAX);
    let (hopeless, nodes): (Vec<_>, Vec<_>) =
        nodes.into_iter().partition(|node| node.attempts > limit);
    for node in hopeless {
        let begun = node.attempts - 1;
        let state = work.state;
        let detail = format!("{state} node failed: it was begun {begun} times and never ended");
        postpone_or_fail(ctx, work, &node, &detail, None).await?;
    }
    Ok(nodes)
}

/// Writes that a mechanism failed for all its nodes. If the mechanism was stopped, hands the lease back.
pub(crate) async fn settle_failure(
    ctx: &Ctx,
    work: &Job<'_>,
    nodes: &[NodeRow],
    error: &MechanismError,
) -> Result<(), DbError> {
    let state = work.state;
    if matches!(error, MechanismError::Stopped) {
        tracing::info!(
            pool.name = work.pool,
            "{state} was stopped; handing the nodes back"
        );
        return lease::hand_back(ctx, work.keeper.lease()).await;
    }
    let mut result = Ok(());
    for node in nodes {
        let detail = format!("{state} node failed: {error}");
        let log = Some(error.log());
        result = result.and(postpone_or_fail(ctx, work, node, &detail, log).await);
    }
    result
}

/// Ends a failed attempt: the node is retried after a pause, or fails after the last attempt. Its data says why.
pub(crate) async fn postpone_or_fail(
    ctx: &Ctx,
    work: &Job<'_>,
    node: &NodeRow,
    detail: &str,
    log: Option<&str>,
) -> Result<(), DbError> {
    let attempt = u32::try_from(node.attempts).unwrap_or(0);
    let tasks = &ctx.config.tasks;
    let mut data = node.data.clone();
    rules::record_error(&mut data.0, ctx.clock.now(), detail, log);
    let pause = (attempt < tasks.attempts)
        .then(|| rules::back_off(attempt, tasks.backoff_min, tasks.backoff_max, work.jitter));
    let log = log.filter(|log| !log.is_empty());
    let log = log.map(|log| format!("\n{log}")).unwrap_or_default();
    let full = format!("{detail}{log}");
    let again_in = pause.or_else(|| repair::pause_before(tasks, node.repairs));
    let transition = match pause {
        Some(_) => Transition::Postpone,
        None => Transition::Fail,
    };
    let change = Change {
        lease: Some(work.keeper.lease()),
        pause: again_in,
        data: Some(&data),
        hostname: node.hostname.as_deref(),
        ipaddr: node.ipaddr.as_deref(),
        detail: Some(&full),
        ..Change::default()
    };
    work.failed.store(true, Ordering::Relaxed);
    work.keeper.expect_fewer(1);
    let write = async |mut tx| {
        let written = transitions::apply_to(&mut tx, transition, node, &change).await?;
        if written.is_some() {
            backoff::note_failure(ctx, &mut tx, work, node, detail).await?;
        }
        Ok(written.is_some())
    };
    let written = lease::persist(ctx, || ctx.db.transaction(write)).await?;
    let pool = work.pool;
    match (written, pause, again_in) {
        (false, _, _) => tracing::warn!(node.id, "failed, and the lease is lost: {detail}"),
        (true, Some(pause), _) => {
            let again_in_s = pause.as_secs();
            tracing::warn!(node.id, pool.name = pool, attempt, again_in_s, "{detail}");
        }
        (true, None, Some(pause)) => {
            let repair_in_s = pause.as_secs();
            tracing::error!(
                node.id,
                pool.name = pool,
                attempt,
                repair_in_s,
                "{detail}; gave up"
            );
        }
        (true, None, None) => {
            let repairs = node.repairs;
            tracing::error!(
                node.id,
                pool.name = pool,
                attempt,
                repairs,
                "{detail}; gave up, and it will not be repaired"
            );
        }
    }
    Ok(())
}
