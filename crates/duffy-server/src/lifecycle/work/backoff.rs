//! Backoff of pools whose mechanisms keep failing.
//!
//! A single node that fails has a pause of its own. When one node after the other fails at its first attempt and none
//! succeeds, the mechanism is at fault: then the pool gets one try at a time, after a pause that grows.

use duffy_api::NodeState;

use super::job::Job;
use crate::cause::Cause;
use crate::context::Ctx;
use crate::db::events::{self, Event};
use crate::db::nodes::NodeRow;
use crate::db::{DbError, Tx, pools};
use crate::lifecycle::rules;

/// From this number of failures in a row, a pool gets one try at a time.
const FAILURES_IN_A_ROW: u32 = 3;

/// Counts a failure of a pool's mechanism. Call it in the transaction that writes the node's result.
pub(crate) async fn note_failure(
    ctx: &Ctx,
    tx: &mut Tx,
    work: &Job<'_>,
    node: &NodeRow,
    detail: &str,
) -> Result<(), DbError> {
    let (pool, state) = (work.pool, work.state);
    if !work.configured {
        // This worker does not know the pool's mechanism.
        return Ok(());
    }
    // A node that fails repeatedly says nothing about the others.
    if node.attempts > 1 || node.repairs > 0 {
        let before = pools::find_pool_state(tx, pool, state).await?;
        if before.is_none_or(|before| before.retry_at.is_none()) {
            return Ok(());
        }
    }
    let begun_ago = work.begun.elapsed().as_secs_f64();
    let counted =
        pools::count_failure(tx, pool, state, detail, FAILURES_IN_A_ROW, begun_ago).await?;
    let Some(failures) = counted.filter(|failures| *failures >= FAILURES_IN_A_ROW) else {
        return Ok(());
    };
    let rung = failures - FAILURES_IN_A_ROW + 1;
    let tasks = &ctx.config.tasks;
    let longest = tasks.pool_backoff_max.max(tasks.backoff_min);
    let pause = rules::back_off(rung, tasks.backoff_min, longest, work.jitter);
    pools::set_retry(tx, pool, state, pause.as_secs_f64()).await?;
    let again_in_s = pause.as_secs();
    tracing::warn!(
        pool.name = pool, %state, failures, again_in_s,
        "the pool's mechanism keeps failing and is tried less often: {detail}"
    );
    if failures == FAILURES_IN_A_ROW {
        let detail = format!("{state} failed {failures} times in a row: {detail}");
        let event = Event::of_pool(Cause::PoolFailing, pool).with_detail(detail);
        events::record(tx, event).await?;
    }
    Ok(())
}

/// Records that a pool's mechanism worked. Call it in the transaction that writes the node's result.
pub(crate) async fn note_success(tx: &mut Tx, work: &Job<'_>) -> Result<(), DbError> {
    let (pool, state) = (work.pool, work.state);
    let before = pools::find_pool_state(tx, pool, state).await?;
    let Some(before) = before.filter(|before| before.failures > 0) else {
        return Ok(());
    };
    if pools::clear_failures(tx, pool, state).await? && before.retry_at.is_some() {
        tracing::info!(pool.name = pool, %state, "the pool's mechanism works again");
        let detail = state.to_string();
        let event = Event::of_pool(Cause::PoolRecovered, pool).with_detail(detail);
        events::record(tx, event).await?;
        tx.wake_workers();
    }
    Ok(())
}

/// Whether a failing mechanism may be tried now. If so, no other worker tries it until the next pause is over.
pub async fn take_try(
    ctx: &Ctx,
    tx: &mut Tx,
    pool: &str,
    state: NodeState,
) -> Result<bool, DbError> {
    // At least until another worker can claim the node of this try.
    let pause = ctx.config.tasks.lease.as_secs_f64();
    pools::take_try(tx, pool, state, pause).await
}
