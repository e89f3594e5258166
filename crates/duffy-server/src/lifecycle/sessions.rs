//! Changes and ends sessions.

pub mod ending;
pub mod expire;
pub mod reclaim;

use chrono::TimeDelta;
use duffy_api::Session;

use crate::context::Ctx;
use crate::db::tenants::{self, TenantRow};
use crate::db::{Timestamp, Tx, sessions};
use crate::lifecycle::request::error::SessionError;
use crate::lifecycle::rules::{self, NewExpiry};
use crate::lifecycle::views;
use crate::node_state::{Transition, is_in_session};

use ending::release_nodes;

/// A change of a session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SessionChange {
    /// `false` retires it.
    pub active: Option<bool>,
    /// When it expires.
    pub expires_at: Option<NewExpiry>,
}

/// Changes a session: retires it, sets when it expires, or both.
pub async fn update_session(
    ctx: &Ctx,
    by: &TenantRow,
    id: i64,
    change: SessionChange,
) -> Result<Session, SessionError> {
    let write = async |mut tx: Tx| {
        let ends = change.active == Some(false);
        // This locks the session, too.
        let retired = if ends && change.expires_at.is_none() {
            let owner = (!by.is_admin).then_some(by.id);
            sessions::retire_session(&mut tx, id, owner).await?
        } else {
            None
        };
        let is_retired = retired.is_some();
        let session = match retired {
            Some(session) => Some(session),
            None => sessions::lock_session(&mut tx, id).await?,
        };
        let mut session = session.ok_or(SessionError::NotFound)?;
        if !by.is_admin && session.tenant_id != by.id {
            return Err(SessionError::Forbidden);
        }
        if !is_retired && session.retired_at.is_some() {
            return Err(SessionError::Retired(id));
        }
        if let Some(new) = change.expires_at {
            let owner = tenants::find_tenant(&mut tx, session.tenant_id).await?;
            let longest = match owner {
                // The sessions of a retired tenant end, and cannot be extended.
                Some(owner) if owner.retired_at.is_some() => Some(TimeDelta::zero()),
                Some(owner) if !by.is_admin => Some(views::effective_lifetime_max(ctx, &owner)),
                _ => None,
            };
            let old = session.expires_at.map(|time| time.0);
            let expires_at =
                Timestamp(rules::clamp_expiry(session.created_at.0, old, new, longest));
            if session.expires_at != Some(expires_at) {
                sessions::set_expiry(&mut tx, &session, expires_at).await?;
                session.expires_at = Some(expires_at);
                tx.wake_workers();
            }
        }
        if !ends {
            return Ok(views::read_session(ctx, &mut tx, session).await?);
        }
        if !is_retired {
            let retired = sessions::retire_session(&mut tx, id, None).await?;
            session = retired.ok_or(SessionError::Retired(id))?;
        }
        let mut nodes = sessions::lock_nodes_of_session(&mut tx, id).await?;
        let rows = nodes.iter().map(|lent| &lent.node);
        let in_use = rows.filter(|node| node.retired_at.is_none() && is_in_session(node.state.0));
        let in_use: Vec<_> = in_use.cloned().collect();
        let released = release_nodes(&mut tx, &session, Transition::Retire, &in_use).await?;
        for node in released {
            if let Some(lent) = nodes.iter_mut().find(|lent| lent.node.id == node.id) {
                lent.node = node;
            }
        }
        let owner = if session.tenant_id == by.id {
            by.clone()
        } else {
            views::read_owner(&mut tx, &session).await?
        };
        Ok(views::session(ctx, session, &owner, nodes))
    };
    let view = ctx.db.transaction(write).await?;
    if !view.active {
        tracing::info!(session.id = id, by = by.name, "session retired");
    }
    Ok(view)
}
