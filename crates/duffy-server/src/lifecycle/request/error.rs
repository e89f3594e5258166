//! Errors of requests for sessions.

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
    /// Only an administrator may request a session for another tenant.
    #[error("can't create session for other tenant")]
    OtherTenant,
    /// An administrator named an unknown tenant.
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
        /// How many are allowed.
        quota: i64,
    },
    /// Too few nodes of the pool are ready, or there is no such pool.
    #[error("can't reserve nodes: quantity={quantity} pool='{pool}'")]
    CannotReserve {
        /// How many were requested.
        quantity: u32,
        /// The pool's name.
        pool: String,
    },
    /// It is retired.
    #[error("session {0} is retired")]
    Retired(i64),
    /// The key could not be installed on nodes, and there were no replacements.
    #[error("contextualization of nodes failed")]
    ContextualizingFailed,
    /// The session was retired, or its nodes were taken over, before it was granted.
    #[error("session {0} was ended before its nodes were ready")]
    LeaseLost(i64),
    /// The idempotency key was used with another request.
    #[error("the idempotency key was used with another request")]
    OtherRequest,
    /// The first request with this idempotency key has no reply yet.
    #[error("the first request with this idempotency key still runs")]
    FirstStillRuns,
    /// The server is about to stop.
    #[error("the server is stopping")]
    Stopping,
    /// The database.
    #[error(transparent)]
    Db(#[from] DbError),
}
