//! Ends sessions, whose nodes are then deprovisioned.

use crate::db::events::Event;
use crate::db::nodes::NodeRow;
use crate::db::sessions::{self, SessionRow};
use crate::db::transitions::{self, Around, Change};
use crate::db::{DbError, Tx};
use crate::node_state::Transition;

/// Retires a session, whose nodes are then deprovisioned. `end` is `Retire`, `Expire`, `Refuse` or `Abandon`. Returns
/// whether there was such a running session.
pub(crate) async fn end_session(tx: &mut Tx, id: i64, end: Transition) -> Result<bool, DbError> {
    let Some(session) = sessions::retire_session(tx, id, None).await? else {
        return Ok(false);
    };
    let in_use = sessions::lock_nodes_in_use(tx, id).await?;
    release_nodes(tx, &session, end, &in_use).await?;
    Ok(true)
}

/// Releases the locked nodes of a session that this transaction has retired, to be deprovisioned. Returns their new rows.
pub(crate) async fn release_nodes(
    tx: &mut Tx,
    session: &SessionRow,
    end: Transition,
    in_use: &[NodeRow],
) -> Result<Vec<NodeRow>, DbError> {
    let change = Change {
        session: Some(session),
        ..Change::default()
    };
    let around = Around {
        before: Some(Event::of_session(
            end.rule().cause,
            session.id,
            session.tenant_id,
        )),
        after: None,
    };
    let released = transitions::apply_to_all(tx, end, in_use, &change, around).await?;
    tx.wake_workers();
    released.ok_or_else(|| DbError::Corrupt("a locked node has changed".into()))
}
