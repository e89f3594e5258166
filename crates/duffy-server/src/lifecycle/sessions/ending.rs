//! Ends sessions, whose nodes are then deprovisioned.

use crate::db::events::{self, Event};
use crate::db::sessions::{self, SessionRow};
use crate::db::transitions::{self, Change};
use crate::db::{DbError, Tx};
use crate::node_state::Transition;

/// Retires a session, whose nodes are then deprovisioned. `end` is `Retire`, `Expire`, `Refuse` or `Abandon`. `None`
/// when there is no such running session.
pub(crate) async fn end_session(
    tx: &mut Tx,
    id: i64,
    end: Transition,
) -> Result<Option<SessionRow>, DbError> {
    let Some(session) = sessions::retire_session(tx, id).await? else {
        return Ok(None);
    };
    let event = Event::of_session(end.rule().cause, id, session.tenant_id);
    events::record(tx, event).await?;
    let nodes = sessions::list_node_ids(tx, id).await?;
    let change = Change {
        session: Some(&session),
        ..Change::default()
    };
    transitions::apply(tx, end, &nodes, &change).await?;
    tx.wake_workers();
    Ok(Some(session))
}
