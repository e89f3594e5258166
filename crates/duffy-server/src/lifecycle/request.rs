//! A request for a session, from its nodes to the reply.
//!
//! Transaction 1 (`reserve.rs::try_reserve`, general connections): `lock_tenant`, `insert_session` with the counts for the
//! quotas, `take_ready_nodes` per pool, `transitions::reserve` for all nodes. Transaction 2
//! (`contextualize.rs::try_deploy`, reserved connections): `lock_session`, `Deploy` for all nodes. The number of
//! statements does not depend on the number of nodes; the end-to-end tests count them (`round_trips.rs`).

pub mod contextualize;
pub mod error;
pub mod idempotency;
pub mod reserve;

use duffy_api::{Session, SessionCreate};

use crate::context::Ctx;
use crate::db::DbError;
use crate::db::tenants::TenantRow;
use crate::lifecycle::sessions::ending::end_session;
use crate::lifecycle::work::lease::{self, LeaseKeeper, new_lease};
use crate::node_state::Transition;

use contextualize::contextualize;
use error::SessionError;
use idempotency::Promise;
use reserve::{Outcome, SessionRequest, reserve};

/// A granted session.
#[derive(Debug)]
pub struct GrantedSession {
    /// Its number.
    pub id: i64,
    /// The reply to the client: a `SessionResult`.
    pub reply: String,
    /// Whether it was granted to an earlier request with the same key.
    pub replayed: bool,
    /// The session's key, if the request has one.
    pub promise: Option<Promise>,
}

/// Grants a session: reserves nodes, installs the tenant's key on them, and deploys them, all or nothing. Takes as long
/// as SSH to the slowest node.
///
/// A request with the `key` of an earlier one gets the session of that request.
pub async fn request_session(
    ctx: &Ctx,
    by: &TenantRow,
    create: SessionCreate,
    key: Option<String>,
) -> Result<GrantedSession, SessionError> {
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
    let request = SessionRequest {
        tenant_id,
        create: &create,
        key: key.as_ref(),
    };
    let (id, reply, replayed) = loop {
        if let Some(key) = request.key
            && let Some((id, reply)) = idempotency::await_answer(ctx, key).await?
        {
            tracing::info!(
                session.id = id,
                "an earlier request was granted the session"
            );
            break (id, reply, true);
        }
        if let Some(session) = grant(ctx, &request).await? {
            break (session.id, idempotency::reply_of(&session)?, false);
        }
    };
    let promise = key.map(|key| Promise {
        tenant_id: key.tenant_id,
        key: key.key,
        session_id: id,
    });
    Ok(GrantedSession {
        id,
        reply,
        replayed,
        promise,
    })
}

/// Grants the session of a request. `None` when another request with the same key was faster.
async fn grant(ctx: &Ctx, request: &SessionRequest<'_>) -> Result<Option<Session>, SessionError> {
    let lease = new_lease();
    let (id, granted) = match reserve(ctx, request, &lease).await? {
        Outcome::Repeated => return Ok(None),
        Outcome::Granted(session) => (session.id, Ok(*session)),
        Outcome::Reserved(reserved) => {
            let id = reserved.session.id;
            let (nodes, leased_at) = (reserved.nodes.len(), reserved.leased_at);
            let keeper = LeaseKeeper::start(ctx, lease, nodes, leased_at);
            (id, contextualize(ctx, *reserved, &keeper).await)
        }
    };
    let granted =
        granted.inspect_err(|error| tracing::warn!(session.id = id, %error, "session not granted"));
    let session = granted?;
    tracing::info!(
        session.id = id,
        tenant.name = session.tenant.name,
        nodes = session.nodes.len(),
        "session granted"
    );
    Ok(Some(session))
}

/// Retires a granted session that no client received. Retries while the database is unavailable.
pub async fn give_back(ctx: &Ctx, id: i64) -> Result<(), DbError> {
    let write = async |mut tx| end_session(&mut tx, id, Transition::Retire).await;
    let retire = async || ctx.db.transaction(write).await.map(drop);
    lease::persist(ctx, retire).await
}
