//! The history, for the API and for operators' commands.

pub mod prune;

use duffy_api::Event;

use crate::context::Ctx;
use crate::db::events::{self, EventRow};
use crate::db::{DbError, nodes, sessions};

/// A page of a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// Only events that follow the event of this number.
    pub after: i64,
    /// The largest number of events.
    pub limit: u32,
}

impl Page {
    /// The largest limit.
    pub const MAX_LIMIT: u32 = 10_000;
}

impl Default for Page {
    fn default() -> Self {
        Self {
            after: 0,
            limit: 1000,
        }
    }
}

/// Returns an event. Only operators see who did it, and the detail: the last lines of a playbook, or an operator's
/// reason.
pub fn event(row: EventRow, for_operators: bool) -> Event {
    // Leaves out a state that only a later version knows.
    let state = |text: Option<String>| text.and_then(|text| text.parse().ok());
    Event {
        id: row.id,
        created_at: row.created_at.0,
        node_id: row.node_id.map(i64::from),
        session_id: row.session_id.map(i64::from),
        tenant_id: row.tenant_id.map(i64::from),
        pool: row.pool,
        from_state: state(row.from_state),
        to_state: state(row.to_state),
        cause: row.cause,
        actor: for_operators.then_some(row.actor),
        detail: row.detail.filter(|_| for_operators),
    }
}

/// Lists the events of a node, oldest first: all for operators, otherwise those of the sessions of `tenant_id`. `None`
/// when there is no such node.
pub async fn list_node_events(
    ctx: &Ctx,
    id: i64,
    tenant_id: Option<i64>,
    page: Page,
) -> Result<Option<Vec<Event>>, DbError> {
    let read = async |mut tx| -> Result<_, DbError> {
        if nodes::find_node(&mut tx, id).await?.is_none() {
            return Ok(None);
        }
        let rows = events::list_of_node(&mut tx, id, page.after, tenant_id, page.limit).await;
        rows.map(Some)
    };
    let show = |row| event(row, tenant_id.is_none());
    let rows = ctx.db.read(read).await?;
    Ok(rows.map(|rows| rows.into_iter().map(show).collect()))
}

/// The history of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionHistory {
    /// There is no such session.
    Unknown,
    /// It is another tenant's.
    OfAnother,
    /// Its events.
    Events(Vec<Event>),
}

/// Lists the events of a session, and of its nodes while it had them, oldest first, for operators or for this tenant.
pub async fn list_session_events(
    ctx: &Ctx,
    id: i64,
    tenant_id: Option<i64>,
    page: Page,
) -> Result<SessionHistory, DbError> {
    let show = |row| event(row, tenant_id.is_none());
    let read = async |mut tx| match sessions::find_session(&mut tx, id).await? {
        None => Ok(SessionHistory::Unknown),
        Some(session) if tenant_id.is_some_and(|tenant| tenant != session.tenant_id) => {
            Ok(SessionHistory::OfAnother)
        }
        Some(_) => {
            let rows = events::list_of_session(&mut tx, id, page.after, page.limit).await?;
            Ok(SessionHistory::Events(rows.into_iter().map(show).collect()))
        }
    };
    ctx.db.read(read).await
}
