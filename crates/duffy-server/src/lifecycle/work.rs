//! Work of a mechanism under a lease: what it is done with, and how it ends when it fails.

use duffy_api::NodeState;
use serde_json::{Map, Value};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::lease::{self, LeaseKeeper};
use super::{pools, repair, rules};
use crate::context::Ctx;
use crate::db::DbError;
use crate::db::nodes::NodeRow;
use crate::db::transitions::{self, Change};
use crate::node_state::Transition;
use crate::nodes::mechanism::{Mechanism, MechanismError, MechanismNode};

/// What work is done with.
#[derive(Debug, Clone, Copy)]
pub struct Work<'a> {
    /// Of the pool.
    pub mechanism: &'a dyn Mechanism,
    /// The pool's name.
    pub pool: &'a str,
    /// The nodes' state while it is done: `provisioning` or `deprovisioning`.
    pub state: NodeState,
    /// Holds the lease that the nodes are under.
    pub keeper: &'a LeaseKeeper,
    /// When it was begun.
    pub begun: Instant,
    /// Whether the pool is in this worker's configuration.
    pub configured: bool,
    /// Is cancelled when the work shall stop.
    pub stop: &'a CancellationToken,
    /// Spreads the pause after a failure, from 0 to 1: the same for all nodes of a batch, so
    /// that they come back together.
    pub jitter: f64,
}

/// How many nodes are reached at the same time: each takes a connection, and processes may
/// have a thousand files open, often no more.
pub(super) const AT_ONCE: usize = 64;

/// A node as mechanisms see it.
pub(super) fn mechanism_node(node: &NodeRow) -> MechanismNode {
    MechanismNode {
        id: node.id,
        hostname: node.hostname.clone(),
        ipaddr: node.ipaddr.clone(),
        data: without_notes(&node.data.0).into(),
    }
}

/// A node's data without what Duffy notes there for itself: playbooks of the original never see it.
fn without_notes(data: &Map<String, Value>) -> Map<String, Value> {
    let mut data = data.clone();
    data.shift_remove("error");
    data.shift_remove(rules::STALE_KEYS);
    data
}

/// Gives up on nodes whose work was begun too often without an end, because whoever did it
/// died each time. Returns the others.
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
        let begun = node.attempts - 1;
        let detail = format!("{what} node failed: it was begun {begun} times and never ended");
        postpone_or_fail(ctx, work, &node, &detail, None).await?;
    }
    Ok(nodes)
}

/// Writes that a mechanism failed for all its nodes; or, if it was told to stop, hands the
/// lease back.
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
        return lease::hand_back(ctx, work.keeper.lease()).await;
    }
    let mut result = Ok(());
    for node in nodes {
        let detail = format!("{what} node failed: {error}");
        let log = Some(error.log());
        result = result.and(postpone_or_fail(ctx, work, node, &detail, log).await);
    }
    result
}

/// Ends an attempt that failed: the node is tried again after a pause, or given up when it
/// was tried often enough. Its data says why.
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
            work.jitter,
        )
    });
    let full = full_detail(detail, log);
    let again_in = pause.or_else(|| repair::pause_before(policy, node.repairs));
    let transition = match pause {
        Some(_) => Transition::Postpone,
        None => Transition::Fail,
    };
    let change = Change {
        lease: Some(work.keeper.lease()),
        pause: again_in,
        data: Some(&data),
        detail: Some(&full),
        ..Change::default()
    };
    work.keeper.expect_fewer(1);
    let write = || {
        ctx.db.transaction(async |mut tx| {
            let written = transitions::apply_to(&mut tx, transition, node, &change).await?;
            if written.is_some() {
                pools::note_failure(ctx, &mut tx, work, node, detail).await?;
            }
            Ok(written.is_some())
        })
    };
    let written = lease::persist(ctx, write).await?;
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
                "{detail}; gave up, and it is not repaired any more"
            );
        }
    }
    Ok(())
}

/// What stands in the history of a failure: the error, and the last lines that led to it.
fn full_detail(detail: &str, log: Option<&str>) -> String {
    match log.filter(|log| !log.is_empty()) {
        Some(log) => format!("{detail}\n{log}"),
        None => detail.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn mechanisms_get_no_notes_of_our_own() {
        let kept = json!({"nodes_spec": {"pool": "p"}, "provision": {"error": "kept"}, "arch": 1});
        let mut data = kept.as_object().unwrap().clone();
        rules::record_error(
            &mut data,
            chrono::DateTime::default(),
            "{{ detail }}",
            Some("log"),
        );
        data.insert(rules::STALE_KEYS.into(), json!(true));
        assert_eq!(Value::Object(without_notes(&data)), kept);
    }
}
