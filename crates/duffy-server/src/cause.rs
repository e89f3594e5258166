//! What happened to a node, a session or a pool: the causes in the history.

use serde::Serialize;

/// What happened. The table and the API have it in kebab case: `handed-back`.
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
    /// The session was not granted, the node is as good as before.
    Returned,
    /// An attempt failed, and another one follows.
    Postponed,
    /// Given up.
    Failed,
    /// Work was stopped, and somebody else may go on.
    HandedBack,
    /// The tenant's key is off a node that an operator keeps as it is.
    KeysRemoved,
    /// A session was granted.
    Granted,
    /// A session's end was moved.
    Extended,
    /// A session was retired by its tenant, an administrator or for its tenant.
    Retired,
    /// A session's time was over.
    Expired,
    /// A session could not be granted, and was undone.
    Refused,
    /// A session was rolled back, for the process that was at it died.
    Abandoned,
    /// A node in use belonged to no running session.
    Orphaned,
    /// A failed node is deprovisioned, to be used again or to be gone.
    Repaired,
    /// An operator keeps a node as it is.
    Held,
    /// An operator lets go of a node that was held.
    Released,
    /// An operator takes a node out for good.
    NodeRetired,
    /// A pool's mechanism keeps failing and is tried more rarely.
    PoolFailing,
    /// A pool's mechanism works again.
    PoolRecovered,
    /// An operator emptied a pool, and it is not filled.
    Drained,
    /// An operator has a pool filled again.
    Resumed,
    /// Old history was removed.
    Purged,
}
