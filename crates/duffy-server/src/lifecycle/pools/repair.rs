//! Failed nodes are deprovisioned after a while, to be used again or removed.
//!
//! A failed node may still have a machine, so it is repaired automatically. The pauses grow. A node whose repair failed
//! too often is left to the operator.

use std::time::Duration;

use duffy_config::Tasks;

use crate::context::Ctx;
use crate::db::transitions::{self, Change};
use crate::db::{DbError, operators};
use crate::lifecycle::rules;
use crate::node_state::Transition;

/// The largest number of nodes in one round.
const BATCH: u32 = 50;

/// Returns the pause before the next repair of a node with this number of repairs; `None` if it is not repaired again.
pub(crate) fn pause_before(tasks: &Tasks, repairs: i32) -> Option<Duration> {
    let repairs = u32::try_from(repairs).unwrap_or(0);
    let (min, max) = (tasks.repair_min, tasks.repair_max);
    let again = repairs < tasks.repairs;
    again.then(|| rules::back_off(repairs + 1, min, max, rand::random()))
}

/// Deprovisions the failed nodes whose pause is over. Returns how many.
pub async fn repair_failed(ctx: &Ctx) -> Result<usize, DbError> {
    let list = async |mut tx| operators::list_repairable(&mut tx, BATCH).await;
    let due = ctx.db.read(list).await?;
    let mut repaired = 0;
    for id in due {
        match repair(ctx, id).await {
            Ok(true) => {
                repaired += 1;
                tracing::info!(node.id = id, "failed node is deprovisioned");
            }
            Ok(false) => {}
            Err(error @ DbError::Unavailable(_)) => return Err(error),
            // Another node seems to have its machine now, so it must not be touched.
            Err(DbError::NotUnique(_)) => {
                tracing::error!(
                    node.id = id,
                    "failed node is not repaired: another one has its name or address"
                );
                leave_alone(ctx, id).await?;
            }
            Err(error) => tracing::error!(node.id = id, %error, "cannot repair a node"),
        }
    }
    Ok(repaired)
}

async fn repair(ctx: &Ctx, id: i64) -> Result<bool, DbError> {
    let write = async |mut tx| {
        let Some(node) = operators::lock_repairable(&mut tx, id).await? else {
            return Ok(false);
        };
        let change = Change::default();
        let moved = transitions::apply_to(&mut tx, Transition::Repair, &node, &change).await?;
        Ok(moved.is_some())
    };
    ctx.db.transaction(write).await
}

async fn leave_alone(ctx: &Ctx, id: i64) -> Result<(), DbError> {
    let change = Change {
        detail: Some("another active node has its name or address; see to it by hand"),
        ..Change::default()
    };
    let write =
        async |mut tx| transitions::apply(&mut tx, Transition::StopRepairs, &[id], &change).await;
    ctx.db.transaction(write).await.map(drop)
}
