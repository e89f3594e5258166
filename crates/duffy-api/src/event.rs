//! History: events of nodes and sessions.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{Action, NodeState};

/// An event of a node or session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = EventModel))]
pub struct Event {
    /// Number of the event: later events have higher numbers.
    pub id: i64,
    /// When it happened.
    #[serde(with = "crate::datetime::required")]
    pub created_at: DateTime<Utc>,
    /// Number of the node, if it is an event of a node.
    pub node_id: Option<i64>,
    /// Number of the session, if it is an event of a session or of a node in a session.
    pub session_id: Option<i64>,
    /// Number of the session's tenant.
    pub tenant_id: Option<i64>,
    /// Name of the pool.
    pub pool: Option<String>,
    /// The node's state before.
    pub from_state: Option<NodeState>,
    /// The node's state after.
    pub to_state: Option<NodeState>,
    /// What happened, for example `claimed`, `provisioned`, `deployed`, `retired`, `expired` or `failed`.
    pub cause: String,
    /// Who did it: a request, a worker, an operator. For administrators only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// The last lines of a playbook or of SSH, or an operator's reason. For administrators only;
    /// may be missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// Several events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EventResultCollection {
    /// What was done.
    pub action: Action,
    /// The events, oldest first.
    pub events: Vec<Event>,
}
