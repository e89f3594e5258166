//! Requesting, changing and retiring sessions.

use chrono::TimeDelta;
use duffy_api::{Session, SessionCreate};
use tokio::time::Instant;

use super::contextualize::contextualize;
use super::lease::{LeaseKeeper, new_lease};
use super::reserve::reserve;
use super::rules;
use super::views;
use crate::context::Ctx;
use crate::db::events::Cause;
use crate::db::tenants::{self, TenantRow};
use crate::db::{Timestamp, sessions};

pub use super::rules::NewExpiry;
pub use super::session_error::SessionError;

/// What is to become of a session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SessionChange {
    /// `false` retires it.
    pub active: Option<bool>,
    /// When it shall expire.
    pub expires_at: Option<NewExpiry>,
}

/// Grants a session: reserves nodes, puts the tenant's key on them, and gives them over. All
/// of what was asked for, or nothing. Takes as long as SSH to the slowest node does.
pub async fn request_session(
    ctx: &Ctx,
    by: &TenantRow,
    create: SessionCreate,
) -> Result<Session, SessionError> {
    if ctx.stop.is_cancelled() {
        return Err(SessionError::Stopping);
    }
    let tenant_id = match create.tenant_id {
        Some(id) if id != by.id && !by.is_admin => return Err(SessionError::OtherTenant),
        Some(id) => id,
        None => by.id,
    };
    let lease = new_lease();
    let taken = Instant::now();
    let reserved = reserve(ctx, tenant_id, &create, &lease).await?;
    let id = reserved.session.id;
    let keeper = LeaseKeeper::start(ctx, lease, reserved.nodes.len(), taken);
    match contextualize(ctx, reserved, &keeper).await {
        Ok(session) => {
            tracing::info!(
                session.id = id,
                tenant.name = session.tenant.name,
                nodes = session.nodes.len(),
                "session granted"
            );
            Ok(session)
        }
        Err(error) => {
            tracing::warn!(session.id = id, %error, "session not granted");
            Err(error)
        }
    }
}

/// Changes a session: retires it, sets when it expires, or both.
pub async fn update_session(
    ctx: &Ctx,
    by: &TenantRow,
    id: i64,
    change: SessionChange,
) -> Result<Session, SessionError> {
    let view = ctx
        .db
        .transaction(|mut tx| async move {
            let session = sessions::lock_session(&mut tx, id).await?;
            let mut session = session.ok_or(SessionError::NotFound)?;
            if !by.is_admin && session.tenant_id != by.id {
                return Err(SessionError::Forbidden);
            }
            if session.retired_at.is_some() {
                return Err(SessionError::Retired { id });
            }
            if let Some(new) = change.expires_at {
                let owner = tenants::find_tenant(&mut tx, session.tenant_id).await?;
                let longest = match owner {
                    // Retiring a tenant ends its sessions; nothing brings them back.
                    Some(owner) if owner.retired_at.is_some() => Some(TimeDelta::zero()),
                    Some(owner) if !by.is_admin => Some(views::effective_lifetime_max(ctx, &owner)),
                    _ => None,
                };
                let old = session.expires_at.map(|time| time.0);
                let expires_at =
                    Timestamp(rules::clamp_expiry(session.created_at.0, old, new, longest));
                sessions::set_expiry(&mut tx, &session, expires_at).await?;
                session.expires_at = Some(expires_at);
                tx.wake_workers();
            }
            if change.active == Some(false) {
                let retired = sessions::retire_session(&mut tx, id, Cause::Retired).await?;
                session = retired.ok_or(SessionError::Retired { id })?;
            }
            let view = views::read_session(ctx, &mut tx, session).await?;
            Ok((tx, view))
        })
        .await?;
    if !view.active {
        tracing::info!(session.id = id, by = by.name, "session retired");
    }
    Ok(view)
}
