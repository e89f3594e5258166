//! The end of a session: its nodes are deprovisioned.

use crate::db::events::{self, Event};
use crate::db::sessions::{self, SessionRow};
use crate::db::transitions::{self, Change};
use crate::db::{DbError, Tx};
use crate::node_state::Transition;

/// Retires a session and hands its nodes over to be deprovisioned: `end` is `Retire`, `Expire`, `Refuse` or `Abandon`.
/// `None` when it was retired already, or is not there.
pub(crate) async fn end_session(
    tx: &mut Tx,
    id: i64,
    end: Transition,
) -> Result<Option<SessionRow>, DbError> {
    let Some(session) = sessions::retire_session(tx, id).await? else {
        return Ok(None);
    };
    events::record(
        tx,
        Event::of_session(end.rule().cause, id, session.tenant_id),
    )
    .await?;
    let nodes = sessions::list_node_ids(tx, id).await?;
    let change = Change {
        session: Some(&session),
        ..Change::default()
    };
    transitions::apply(tx, end, &nodes, &change).await?;
    tx.wake_workers();
    Ok(Some(session))
}
