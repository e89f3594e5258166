//! A snapshot of all tables that a check compares.

use super::{Db, DbResult, Timestamp};
use crate::db::nodes::{self, NodeRow};
use crate::db::pools::{self, PoolStateRow};
use crate::db::sessions::{self, SessionNodeRow, SessionRow};
use crate::db::tenants::{self, TenantRow};

/// The rows of the tables at one moment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The moment, by the database's clock.
    pub now: Timestamp,
    /// The nodes that are not retired.
    pub nodes: Vec<NodeRow>,
    /// The running sessions.
    pub sessions: Vec<SessionRow>,
    /// Their nodes.
    pub uses: Vec<SessionNodeRow>,
    /// All tenants.
    pub tenants: Vec<TenantRow>,
    /// The states of pools' mechanisms.
    pub pools: Vec<PoolStateRow>,
}

/// Takes a snapshot.
pub async fn take_snapshot(db: &Db) -> DbResult<Snapshot> {
    db.snapshot(async |mut tx| {
        let nodes = nodes::list_active_nodes(&mut tx).await?;
        let snapshot = Snapshot {
            // The first table that is read fixes the moment.
            now: tx.value("SELECT {now}", &[]).await?,
            nodes,
            sessions: sessions::list_active_sessions(&mut tx).await?,
            uses: sessions::list_nodes_of_active_sessions(&mut tx).await?,
            tenants: tenants::list_tenants(&mut tx, None).await?,
            pools: pools::list_pool_states(&mut tx).await?,
        };
        Ok(snapshot)
    })
    .await
}
