//! Ending sessions whose time is over.

use crate::context::Ctx;
use crate::db::{DbError, sessions};

/// So many sessions end in one transaction at most.
const BATCH: u32 = 50;

/// Retires the sessions whose time is over; their nodes are deprovisioned. Returns how many.
pub async fn expire_sessions(ctx: &Ctx) -> Result<usize, DbError> {
    let mut expired = 0;
    loop {
        let batch = ctx
            .db
            .transaction(|mut tx| async move {
                let ids = sessions::lock_expired_sessions(&mut tx, BATCH).await?;
                for id in &ids {
                    sessions::retire_session(&mut tx, *id).await?;
                }
                Ok::<_, DbError>((tx, ids))
            })
            .await?;
        for id in &batch {
            tracing::info!(session.id = id, "session expired");
        }
        expired += batch.len();
        if batch.len() < BATCH as usize {
            return Ok(expired);
        }
    }
}
