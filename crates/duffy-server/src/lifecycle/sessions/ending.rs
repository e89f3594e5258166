//! Ends sessions, whose nodes are then deprovisioned.

use crate::db::events::Event;
use crate::db::sessions::{self, SessionNodeRow, SessionRow};
use crate::db::transitions::{self, Around, Change};
use crate::db::{DbError, Tx};
use crate::node_state::Transition;

/// Retires a session, whose nodes are then deprovisioned. `end` is `Retire`, `Expire`, `Refuse` or `Abandon`. Returns
/// whether there was such a running session.
pub(crate) async fn end_session(tx: &mut Tx, id: i64, end: Transition) -> Result<bool, DbError> {
    let Some(session) = sessions::retire_session(tx, id).await? else {
        return Ok(false);
    };
    release_nodes(tx, &session, end).await?;
    Ok(true)
}

/// Releases the nodes of a session that this transaction has retired, to be deprovisioned. Returns the nodes of the
/// session.
pub(crate) async fn release_nodes(
    tx: &mut Tx,
    session: &SessionRow,
    end: Transition,
) -> Result<Vec<SessionNodeRow>, DbError> {
    let mut nodes = sessions::lock_nodes_of_session(tx, session.id).await?;
    let rule = end.rule();
    let in_use = nodes
        .iter()
        .map(|lent| &lent.node)
        .filter(|node| node.retired_at.is_none() && rule.from.contains(&node.state.0));
    let in_use: Vec<_> = in_use.cloned().collect();
    let change = Change {
        session: Some(session),
        ..Change::default()
    };
    let around = Around {
        before: Some(Event::of_session(rule.cause, session.id, session.tenant_id)),
        after: None,
    };
    let released = transitions::apply_to_all(tx, end, &in_use, &change, around).await?;
    tx.wake_workers();
    let released = released.ok_or_else(|| DbError::Corrupt("a locked node has changed".into()))?;
    for node in released {
        if let Some(lent) = nodes.iter_mut().find(|lent| lent.node.id == node.id) {
            lent.node = node;
        }
    }
    Ok(nodes)
}
