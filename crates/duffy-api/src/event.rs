//! History: what happened to nodes and sessions.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{Action, NodeState};

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = EventModel))]
pub struct Event {
    /// Number of the event: later ones have higher numbers.
    pub id: i64,
    /// When it happened.
    #[serde(with = "crate::datetime::required")]
    pub created_at: DateTime<Utc>,
    /// Number of the node, if it happened to one.
    pub node_id: Option<i64>,
    /// Number of the session, if it happened to one, or to a node in one.
    pub session_id: Option<i64>,
    /// Number of the session's tenant.
    pub tenant_id: Option<i64>,
    /// Name of the pool.
    pub pool: Option<String>,
    /// The node's state before.
    pub from_state: Option<NodeState>,
    /// The node's state after.
    pub to_state: Option<NodeState>,
    /// What happened: `claimed`, `provisioned`, `deployed`, `retired`, `expired`, `failed`, say.
    pub cause: String,
    /// Who did it: a request, a worker, an operator. For administrators only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// The last lines of a playbook or of SSH, or an operator's reason. For administrators only,
    /// and not there when there is nothing to say.
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
