//! Forgetting: history that is older than the configuration has it kept, and old idempotency keys.

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

/// Removes history that is older than is wanted. Returns how many rows.
pub async fn prune_history(ctx: &Ctx) -> Result<u64, DbError> {
    match ctx.policy.keep_history {
        Some(age) => remove_slices(ctx, age, AT_ONCE).await,
        None => Ok(0),
    }
}

/// Removes history older than this. Returns how many rows.
pub async fn remove_older(ctx: &Ctx, age: Duration) -> Result<u64, DbError> {
    remove_slices(ctx, age, u32::MAX).await
}

async fn remove_slices(ctx: &Ctx, age: Duration, slices: u32) -> Result<u64, DbError> {
    let before = long_ago(ctx, age).await?;
    let mut removed = 0;
    let mut place = Some(EventPosition::START);
    for _ in 0..slices {
        let Some(after) = place else { break };
        let write = async |mut tx| old_events::delete_slice(&mut tx, after, before, BATCH).await;
        let slice = ctx.db.transaction(write).await?;
        removed += slice.events;
        place = slice.next;
    }
    if removed > 0 {
        tracing::info!(rows = removed, "old history removed");
    }
    Ok(removed)
}

/// How much history is older than this.
pub async fn count_older(ctx: &Ctx, age: Duration) -> Result<u64, DbError> {
    let before = long_ago(ctx, age).await?;
    let mut counted = 0;
    let mut place = Some(EventPosition::START);
    while let Some(after) = place {
        let count = async |mut tx| old_events::count_slice(&mut tx, after, before, COUNTED).await;
        let slice = ctx.db.read(count).await?;
        counted += slice.events;
        place = slice.next;
    }
    Ok(counted)
}

async fn long_ago(ctx: &Ctx, age: Duration) -> Result<Timestamp, DbError> {
    let long = async |mut tx| old_events::long_ago(&mut tx, age.as_secs_f64()).await;
    ctx.db.read(long).await
}

/// How long the answer to a request with a key is kept at least; longer while its session runs.
const KEEP_KEYS: Duration = Duration::from_hours(24);

/// Forgets the keys of old requests. Returns how many.
pub async fn prune_keys(ctx: &Ctx) -> Result<u64, DbError> {
    in_batches(AT_ONCE, || {
        ctx.db.transaction(async |mut tx| {
            let age = KEEP_KEYS.as_secs_f64();
            let removed = idempotency::delete_old_keys(&mut tx, age, BATCH).await?;
            Ok(removed)
        })
    })
    .await
}

/// Removes a batch of rows after the other, each in a transaction of its own.
async fn in_batches<F, Fut>(batches: u32, remove: F) -> Result<u64, DbError>
where
    F: Fn() -> Fut,
    Fut: Future<Output = Result<u64, DbError>>,
{
    let mut removed = 0;
    for _ in 0..batches {
        let batch = remove().await?;
        removed += batch;
        if batch < u64::from(BATCH) {
            break;
        }
    }
    Ok(removed)
}
