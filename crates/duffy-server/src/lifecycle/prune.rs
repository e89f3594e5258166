//! Forgetting: history that is older than the configuration has it kept.

use std::time::Duration;

use crate::context::Ctx;
use crate::db::{DbError, events};

/// So many rows are looked at in one transaction.
const BATCH: u32 = 1000;

/// Removes history that is older than is wanted. Returns how many rows.
pub async fn prune_history(ctx: &Ctx) -> Result<u64, DbError> {
    match ctx.policy.keep_history {
        Some(age) => remove_older(ctx, age).await,
        None => Ok(0),
    }
}

/// Removes history older than this. Returns how many rows.
pub async fn remove_older(ctx: &Ctx, age: Duration) -> Result<u64, DbError> {
    let mut removed = 0;
    loop {
        let batch = ctx
            .db
            .transaction(|mut tx| async move {
                let removed = events::delete_old_events(&mut tx, age.as_secs_f64(), BATCH).await?;
                Ok::<_, DbError>((tx, removed))
            })
            .await?;
        removed += batch;
        if batch < u64::from(BATCH) {
            if removed > 0 {
                tracing::info!(rows = removed, "old history removed");
            }
            return Ok(removed);
        }
    }
}
