//! Cleans up after processes that died.
//!
//! This rolls back sessions that were not granted yet. Nodes that were being provisioned or deprovisioned can be
//! claimed again when their lease lapses.

use crate::context::Ctx;
use crate::db::transitions::{self, Change};
use crate::db::{DbError, sessions};
use crate::lifecycle::sessions::ending::end_session;
use crate::node_state::Transition;

/// Rolls back sessions whose request died, and releases nodes in use by no running session.
pub async fn reclaim_abandoned(ctx: &Ctx) -> Result<(), DbError> {
    let list = async |mut tx| sessions::list_abandoned_sessions(&mut tx).await;
    let abandoned = ctx.db.read(list).await?;
    for id in abandoned {
        let write = async |mut tx| {
            // Again, under the session's lock: its request may have continued.
            sessions::lock_session(&mut tx, id).await?;
            let abandoned = sessions::list_abandoned_sessions(&mut tx).await?;
            if !abandoned.contains(&id) {
                return Ok(false);
            }
            end_session(&mut tx, id, Transition::Abandon).await
        };
        let rolled_back = ctx.db.transaction(write).await;
        match rolled_back {
            Ok(true) => tracing::warn!(session.id = id, "rolled back: its request died"),
            Ok(false) => {}
            Err(error @ DbError::Unavailable(_)) => return Err(error),
            Err(error) => tracing::error!(session.id = id, %error, "cannot roll back a session"),
        }
    }
    let list = async |mut tx| sessions::list_orphans(&mut tx).await;
    if ctx.db.read(list).await?.is_empty() {
        return Ok(());
    }
    let release = async |mut tx| -> Result<_, DbError> {
        let orphans = sessions::list_orphans(&mut tx).await?;
        let change = Change::default();
        transitions::apply(&mut tx, Transition::ReleaseOrphan, &orphans, &change).await
    };
    let released = ctx.db.transaction(release).await?.len();
    if released > 0 {
        tracing::warn!(
            nodes = released,
            "released nodes in use by no running session"
        );
    }
    Ok(())
}
