//! Requesting, changing and retiring sessions.

use chrono::TimeDelta;
use duffy_api::{Session, SessionCreate};
use tokio::time::Instant;

use super::contextualize::contextualize;
use super::ending::end_session;
use super::idempotency;
use super::lease::{self, LeaseKeeper, new_lease};
use super::reserve::{Outcome, Wanted, reserve};
use super::rules;
use super::views;
use crate::context::Ctx;
use crate::db::tenants::{self, TenantRow};
use crate::db::{DbError, Timestamp, sessions};
use crate::node_state::Transition;

pub use super::idempotency::Promise;
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

/// A session, granted.
#[derive(Debug)]
pub struct Granted {
    /// Its number.
    pub id: i64,
    /// What the client is told: a `SessionResult`.
    pub reply: String,
    /// Whether an earlier request with the same key was granted it.
    pub replayed: bool,
    /// The request's key, by which it can be repeated.
    pub promise: Option<Promise>,
}

/// Grants a session: reserves nodes, puts the tenant's key on them, and gives them over. All
/// of what was asked for, or nothing. Takes as long as SSH to the slowest node does.
///
/// A request with the `key` of an earlier one gets that one's session.
pub async fn request_session(
    ctx: &Ctx,
    by: &TenantRow,
    create: SessionCreate,
    key: Option<String>,
) -> Result<Granted, SessionError> {
    if ctx.stop.is_cancelled() {
        return Err(SessionError::Stopping);
    }
    let tenant_id = match create.tenant_id {
        Some(id) if id != by.id && !by.is_admin => return Err(SessionError::OtherTenant),
        Some(id) => id,
        None => by.id,
    };
    let key = key.map(|key| idempotency::new_key(by.id, key, tenant_id, &create));
    let key = key.transpose()?;
    let wanted = Wanted {
        tenant_id,
        create: &create,
        key: key.as_ref(),
    };
    let (id, reply, replayed) = loop {
        if let Some(key) = wanted.key
            && let Some((id, reply)) = idempotency::await_answer(ctx, key).await?
        {
            tracing::info!(
                session.id = id,
                "an earlier request was granted the session"
            );
            break (id, reply, true);
        }
        if let Some(session) = grant(ctx, &wanted).await? {
            break (session.id, idempotency::reply_of(&session)?, false);
        }
    };
    let promise = key.map(|key| Promise {
        tenant_id: key.tenant_id,
        key: key.key,
        session_id: id,
    });
    Ok(Granted {
        id,
        reply,
        replayed,
        promise,
    })
}

/// Grants what is wanted. `None` when another request with the same key was faster.
async fn grant(ctx: &Ctx, wanted: &Wanted<'_>) -> Result<Option<Session>, SessionError> {
    let lease = new_lease();
    let taken = Instant::now();
    let (id, granted) = match reserve(ctx, wanted, &lease).await? {
        Outcome::Repeated => return Ok(None),
        Outcome::Granted(session) => (session.id, Ok(*session)),
        Outcome::Reserved(reserved) => {
            let id = reserved.session.id;
            let keeper = LeaseKeeper::start(ctx, lease, reserved.nodes.len(), taken);
            (id, contextualize(ctx, *reserved, &keeper).await)
        }
    };
    match granted {
        Ok(session) => {
            tracing::info!(
                session.id = id,
                tenant.name = session.tenant.name,
                nodes = session.nodes.len(),
                "session granted"
            );
            Ok(Some(session))
        }
        Err(error) => {
            tracing::warn!(session.id = id, %error, "session not granted");
            Err(error)
        }
    }
}

/// Retires a session that was granted and that nobody took, again and again while the database is
/// away.
pub async fn give_back(ctx: &Ctx, id: i64) -> Result<(), DbError> {
    let retire = || {
        ctx.db.transaction(async |mut tx| {
            end_session(&mut tx, id, Transition::Retire).await?;
            Ok(())
        })
    };
    lease::persist(ctx, retire).await
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
        .transaction(async |mut tx| {
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
                if session.expires_at != Some(expires_at) {
                    sessions::set_expiry(&mut tx, &session, expires_at).await?;
                    session.expires_at = Some(expires_at);
                    tx.wake_workers();
                }
            }
            if change.active == Some(false) {
                let retired = end_session(&mut tx, id, Transition::Retire).await?;
                session = retired.ok_or(SessionError::Retired { id })?;
            }
            let view = views::read_session(ctx, &mut tx, session).await?;
            Ok(view)
        })
        .await?;
    if !view.active {
        tracing::info!(session.id = id, by = by.name, "session retired");
    }
    Ok(view)
}
