//! Why a session is not granted or changed.

use crate::db::DbError;

/// Why a session was not granted or changed.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// There is no such session.
    #[error("there is no such session")]
    NotFound,
    /// It belongs to another tenant.
    #[error("the session belongs to another tenant")]
    Forbidden,
    /// Only an administrator may request for another tenant.
    #[error("can't create session for other tenant")]
    OtherTenant,
    /// An administrator named a tenant that is not there.
    #[error("can't find tenant with id {0}")]
    UnknownTenant(i64),
    /// An administrator named a retired tenant.
    #[error("tenant '{0}' isn't active")]
    InactiveTenant(String),
    /// The tenant would hold too many nodes.
    #[error(
        "quota exceeded: requested nodes ({requested}) + current allocation ({current}) = {} > {quota}",
        requested + current
    )]
    QuotaExceeded {
        /// How many it asks for.
        requested: i64,
        /// How many it holds.
        current: i64,
        /// How many it may hold.
        quota: i64,
    },
    /// The tenant would have too many sessions.
    #[error("the tenant has {current} active sessions, and may have {quota}; retire some first")]
    TooManySessions {
        /// How many are active.
        current: i64,
        /// How many may be.
        quota: i64,
    },
    /// Too few nodes of the pool are ready, or there is no such pool.
    #[error("can't reserve nodes: quantity={quantity} pool='{pool}'")]
    CannotReserve {
        /// How many were asked for.
        quantity: u32,
        /// The pool's name.
        pool: String,
    },
    /// It is retired already.
    #[error("session {0} is retired")]
    Retired(i64),
    /// The key could not be put on nodes, and there were no others.
    #[error("contextualization of nodes failed")]
    ContextualizingFailed,
    /// Somebody retired the session, or took its nodes over, before it was granted.
    #[error("session {0} was ended before its nodes were ready")]
    LeaseLost(i64),
    /// The idempotency key came with another request before.
    #[error("the idempotency key was used with another request")]
    OtherRequest,
    /// The first request with this idempotency key has no answer yet.
    #[error("the first request with this idempotency key still runs")]
    FirstStillRuns,
    /// The server is about to stop.
    #[error("the server is stopping")]
    Stopping,
    /// The database.
    #[error(transparent)]
    Db(#[from] DbError),
}
