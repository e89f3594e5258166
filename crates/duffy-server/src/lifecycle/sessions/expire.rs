//! Ends sessions that have expired.

use crate::context::Ctx;
use crate::db::{DbError, sessions};
use crate::lifecycle::sessions::ending::end_session;
use crate::node_state::Transition;

/// The size of a batch.
const BATCH: u32 = 100;

/// Retires the sessions that have expired. Each has a transaction of its own, so that one that cannot be retired does
/// not block the others. Returns how many.
pub async fn expire_sessions(ctx: &Ctx) -> Result<usize, DbError> {
    let mut expired = 0;
    loop {
        let list = async |mut tx| sessions::list_expired_sessions(&mut tx, BATCH).await;
        let due = ctx.db.read(list).await?;
        let mut progress = false;
        for id in &due {
            match expire_session(ctx, *id).await {
                Ok(true) => {
                    tracing::info!(session.id = id, "session expired");
                    progress = true;
                    expired += 1;
                }
                // Another worker ends it.
                Ok(false) => {}
                Err(error @ DbError::Unavailable(_)) => return Err(error),
                Err(error) => tracing::error!(session.id = id, %error, "cannot expire a session"),
            }
        }
        if due.len() < BATCH as usize || !progress {
            return Ok(expired);
        }
    }
}

async fn expire_session(ctx: &Ctx, id: i64) -> Result<bool, DbError> {
    let write = async |mut tx| {
        if !sessions::lock_expired_session(&mut tx, id).await? {
            return Ok(false);
        }
        end_session(&mut tx, id, Transition::Expire).await
    };
    ctx.db.transaction(write).await
}
