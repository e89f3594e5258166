//! What happened to a node, a session or a pool: the causes in the history.
//!
//! `node_state.rs` names the cause of each transition (without `Cause::`); `Event::new`, `of_session` and `of_pool` take the
//! others.

use serde::Serialize;

/// What happened. The table and the API use kebab case: `handed-back`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// A node was registered.
    Registered,
    /// A pool lacked a node.
    Filled,
    /// A worker began an attempt.
    Claimed,
    /// The mechanism made the node.
    Provisioned,
    /// The mechanism took the node down.
    Deprovisioned,
    /// A session took the node.
    Reserved,
    /// The tenant's key is on the node.
    Deployed,
    /// The session was not granted, and the node is ready again.
    Returned,
    /// An attempt failed, and another one follows.
    Postponed,
    /// The last attempt failed.
    Failed,
    /// A ready node cannot be reached.
    ProbeFailed,
    /// Work was stopped, and another process may continue it.
    HandedBack,
    /// The tenant's key is off a node that an operator holds.
    KeysRemoved,
    /// A session was granted.
    Granted,
    /// A session's expiry was changed.
    Extended,
    /// The tenant or an administrator retired a session, or no client received it.
    Retired,
    /// A session expired.
    Expired,
    /// A session could not be granted and was rolled back.
    Refused,
    /// A session was rolled back because the process that worked on its request died.
    Abandoned,
    /// A node in use belonged to no running session.
    Orphaned,
    /// A failed node is deprovisioned, to be used again or removed.
    Repaired,
    /// An operator holds a node.
    Held,
    /// An operator released a node that was held.
    Released,
    /// An operator retired a node.
    NodeRetired,
    /// A pool's mechanism keeps failing and is tried less often.
    PoolFailing,
    /// A pool's mechanism works again.
    PoolRecovered,
    /// An operator drained a pool.
    Drained,
    /// An operator resumed a pool.
    Resumed,
    /// Old history was removed.
    Purged,
}
