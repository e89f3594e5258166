//! Nodes: the machines that sessions use.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::Action;

/// State of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    /// In no pool; a pool can take a reusable node.
    Unused,
    /// A worker makes it ready.
    Provisioning,
    /// Ready for a session.
    Ready,
    /// Reserved; the tenant's key is being put on it.
    Contextualizing,
    /// In a session.
    Deployed,
    /// A worker cleans it or removes it.
    Deprovisioning,
    /// Removed; the row is history.
    Done,
    /// Quarantined after an error.
    Failed,
}

impl NodeState {
    /// Every state.
    pub const ALL: [NodeState; 8] = [
        NodeState::Unused,
        NodeState::Provisioning,
        NodeState::Ready,
        NodeState::Contextualizing,
        NodeState::Deployed,
        NodeState::Deprovisioning,
        NodeState::Done,
        NodeState::Failed,
    ];

    /// The state's name on the wire and in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            NodeState::Unused => "unused",
            NodeState::Provisioning => "provisioning",
            NodeState::Ready => "ready",
            NodeState::Contextualizing => "contextualizing",
            NodeState::Deployed => "deployed",
            NodeState::Deprovisioning => "deprovisioning",
            NodeState::Done => "done",
            NodeState::Failed => "failed",
        }
    }
}

impl std::fmt::Display for NodeState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that is not a state's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown node state {0:?}")]
pub struct UnknownNodeState(pub String);

impl std::str::FromStr for NodeState {
    type Err = UnknownNodeState;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| UnknownNodeState(text.to_owned()))
    }
}

/// A node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = NodeModel))]
pub struct Node {
    /// When the node was retired; `null` while it is active.
    #[serde(with = "crate::datetime::optional")]
    pub retired_at: Option<DateTime<Utc>>,
    /// Whether it is not retired.
    pub active: bool,
    /// When the row was created.
    #[serde(with = "crate::datetime::required")]
    pub created_at: DateTime<Utc>,
    /// Host name.
    pub hostname: Option<String>,
    /// IPv4 or IPv6 address.
    pub ipaddr: Option<String>,
    /// An operator's remark.
    pub comment: Option<String>,
    /// The pool that it belongs to.
    pub pool: Option<String>,
    /// Whether it goes back to `unused` after use, instead of being retired.
    pub reusable: bool,
    /// Data of the node: `provision` is the mechanism's result, `error` the last failure.
    pub data: Map<String, Value>,
    /// Number of the node.
    pub id: i64,
    /// Its state.
    pub state: NodeState,
}

/// A node as a session shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = SessionNodeModel))]
pub struct SessionNode {
    /// Host name.
    pub hostname: Option<String>,
    /// IPv4 or IPv6 address.
    pub ipaddr: Option<String>,
    /// An operator's remark.
    pub comment: Option<String>,
    /// The pool that it belongs to.
    pub pool: Option<String>,
    /// Whether it is used again after the session.
    pub reusable: bool,
    /// Data of the node.
    pub data: Map<String, Value>,
    /// Number of the node.
    pub id: i64,
    /// Its state; `null` if the session is retired.
    pub state: Option<NodeState>,
}

/// Requests the registration of a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = NodeCreateModel))]
pub struct NodeCreate {
    /// Host name; unique among active nodes.
    pub hostname: String,
    /// IPv4 or IPv6 address; unique among active nodes.
    pub ipaddr: String,
    /// An operator's remark.
    #[serde(default)]
    pub comment: Option<String>,
    /// The pool that it belongs to; none for a node that pools can take.
    #[serde(default)]
    pub pool: Option<String>,
    /// Whether it goes back to `unused` after use.
    #[serde(default = "yes")]
    pub reusable: bool,
    /// Data of the node; a pool's `reuse-nodes` selects by these members.
    #[serde(default)]
    pub data: Map<String, Value>,
}

fn yes() -> bool {
    true
}

/// One node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NodeResult {
    /// What was done.
    pub action: Action,
    /// The node.
    pub node: Node,
}

/// Several nodes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NodeResultCollection {
    /// What was done.
    pub action: Action,
    /// The nodes.
    pub nodes: Vec<Node>,
}
