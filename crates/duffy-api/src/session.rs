//! Sessions: nodes that a tenant uses for a limited time.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{Action, SessionNode, Tenant};

/// A number of nodes of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NodesSpec {
    /// How many nodes, at least 1.
    #[cfg_attr(feature = "openapi", schema(minimum = 1))]
    pub quantity: u32,
    /// Name of the pool.
    pub pool: String,
}

/// A session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = SessionModel))]
pub struct Session {
    /// When it was retired; `null` while it is active.
    #[serde(with = "crate::datetime::optional")]
    pub retired_at: Option<DateTime<Utc>>,
    /// Whether it is not retired.
    pub active: bool,
    /// When it was granted.
    #[serde(with = "crate::datetime::required")]
    pub created_at: DateTime<Utc>,
    /// Number of the session.
    pub id: i64,
    /// When it expires.
    #[serde(with = "crate::datetime::optional")]
    pub expires_at: Option<DateTime<Utc>>,
    /// Its tenant.
    pub tenant: Tenant,
    /// `nodes_specs` is the request.
    pub data: Map<String, Value>,
    /// Its nodes.
    pub nodes: Vec<SessionNode>,
}

/// Requests a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = SessionCreateModel))]
pub struct SessionCreate {
    /// The tenant; only an administrator can name another tenant than itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant_id: Option<i64>,
    /// Numbers of nodes by pool; all of them are granted, or none.
    pub nodes_specs: Vec<NodesSpec>,
}

/// Requests a change of a session.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = SessionUpdateModel))]
pub struct SessionUpdate {
    /// `false` retires it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active: Option<bool>,
    /// A point in time (ISO 8601), or an offset to the current expiry (`+1h`, `-30m`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
}

/// One session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SessionResult {
    /// What was done.
    pub action: Action,
    /// The session.
    pub session: Session,
}

/// Several sessions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SessionResultCollection {
    /// What was done.
    pub action: Action,
    /// The sessions.
    pub sessions: Vec<Session>,
}
