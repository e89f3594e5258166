//! Removes old history and old idempotency keys.

use std::time::Duration;

use crate::context::Ctx;
use crate::db::old_events::{self, EventPosition};
use crate::db::{DbError, Timestamp, idempotency};

/// How many rows one transaction removes.
const BATCH: u32 = 1000;
/// How many batches a worker removes before it runs its other duties.
const AT_ONCE: u32 = 20;
/// How many rows one transaction counts.
const COUNTED: u32 = 100_000;

/// Removes up to `AT_ONCE` batches of history that is older than configured. Returns how many rows.
pub async fn prune_history(ctx: &Ctx) -> Result<u64, DbError> {
    match ctx.config.tasks.keep_history {
        Some(age) => remove_older(ctx, age, AT_ONCE).await,
        None => Ok(0),
    }
}

/// Removes history older than this, up to a number of batches. Returns how many rows.
pub async fn remove_older(ctx: &Ctx, age: Duration, batches: u32) -> Result<u64, DbError> {
    let before = long_ago(ctx, age).await?;
    let mut removed = 0;
    let mut position = Some(EventPosition::START);
    for _ in 0..batches {
        let Some(after) = position else { break };
        let delete = async |mut tx| old_events::delete_slice(&mut tx, after, before, BATCH).await;
        let slice = ctx.db.transaction(delete).await?;
        removed += slice.events;
        position = slice.next;
    }
    if removed > 0 {
        tracing::info!(rows = removed, "old history removed");
    }
    Ok(removed)
}

/// Counts the events that are older than this.
pub async fn count_older(ctx: &Ctx, age: Duration) -> Result<u64, DbError> {
    let before = long_ago(ctx, age).await?;
    let mut counted = 0;
    let mut position = Some(EventPosition::START);
    while let Some(after) = position {
        let count = async |mut tx| old_events::count_slice(&mut tx, after, before, COUNTED).await;
        let slice = ctx.db.read(count).await?;
        counted += slice.events;
        position = slice.next;
    }
    Ok(counted)
}

async fn long_ago(ctx: &Ctx, age: Duration) -> Result<Timestamp, DbError> {
    let read = async |mut tx| old_events::long_ago(&mut tx, age.as_secs_f64()).await;
    ctx.db.read(read).await
}

/// How long the reply to a request with a key is kept at least. It is kept longer while its session runs.
const KEEP_KEYS: Duration = Duration::from_hours(24);

/// Deletes the keys of old requests. Returns how many.
pub async fn prune_keys(ctx: &Ctx) -> Result<u64, DbError> {
    let age = KEEP_KEYS.as_secs_f64();
    let delete = async |mut tx| idempotency::delete_old_keys(&mut tx, age, BATCH).await;
    let mut removed = 0;
    for _ in 0..AT_ONCE {
        let batch = ctx.db.transaction(delete).await?;
        removed += batch;
        if batch < u64::from(BATCH) {
            break;
        }
    }
    Ok(removed)
}
