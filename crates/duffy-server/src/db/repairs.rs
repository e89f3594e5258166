//! The `nodes` table: failed nodes, and what becomes of them.

use duffy_api::NodeState;

use super::events::{self, Cause, Event};
use super::{DbError, Tx};
use crate::db::nodes::NodeRow;

/// Up to `limit` failed nodes whose repair is due.
pub async fn list_repairable(tx: &mut Tx, limit: u32) -> Result<Vec<i64>, DbError> {
    let rows = tx.query("SELECT id FROM nodes WHERE retired_at IS NULL AND held_at IS NULL AND state = 'failed' \
         AND pool IS NOT NULL AND retry_at <= {now} ORDER BY retry_at LIMIT $1").bind(i64::from(limit)).column::<i32>().await?;
    Ok(rows.into_iter().map(i64::from).collect())
}

/// Hands a failed node whose repair is due over to be deprovisioned. False when it is not.
pub async fn repair_node(tx: &mut Tx, id: i64) -> Result<bool, DbError> {
    let row = tx
        .query(
            "UPDATE nodes SET state = 'deprovisioning', lease = NULL, lease_expires_at = NULL, \
         attempts = 0, retry_at = NULL, repairs = repairs + 1, state_since = {now} \
         WHERE id = $1 AND retired_at IS NULL AND held_at IS NULL AND state = 'failed' \
         AND pool IS NOT NULL AND retry_at <= {now} RETURNING {node_columns}",
        )
        .bind(id)
        .fetch_optional::<NodeRow>()
        .await?;
    let Some(row) = row else {
        return Ok(false);
    };
    let (from, to) = (NodeState::Failed, NodeState::Deprovisioning);
    let detail = format!("repair {}", row.repairs);
    let event = Event::of_node(Cause::Repaired, id, from, to).with_detail(&detail);
    events::record(tx, &event.in_pool(row.pool.as_deref())).await?;
    tx.wake_workers();
    Ok(true)
}

/// Leaves a failed node to the operator, for this reason.
pub async fn stop_repairs(tx: &mut Tx, id: i64, detail: &str) -> Result<(), DbError> {
    if tx
        .query("UPDATE nodes SET retry_at = NULL WHERE id = $1 AND state = 'failed'")
        .bind(id)
        .execute()
        .await?
        == 1
    {
        let event = Event::of_node(Cause::Failed, id, NodeState::Failed, NodeState::Failed);
        events::record(tx, &event.with_detail(detail)).await?;
    }
    Ok(())
}
