//! Sessions: nodes lent to a tenant for a time.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{Action, SessionNode, Tenant};

/// So many nodes of a pool.
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
    /// When it was retired; `null` while it runs.
    #[serde(with = "crate::datetime::optional")]
    pub retired_at: Option<DateTime<Utc>>,
    /// Whether it is not retired.
    pub active: bool,
    /// When it was granted.
    #[serde(with = "crate::datetime::required")]
    pub created_at: DateTime<Utc>,
    /// Number of the session.
    pub id: i64,
    /// When it ends by itself.
    #[serde(with = "crate::datetime::optional")]
    pub expires_at: Option<DateTime<Utc>>,
    /// Whose it is.
    pub tenant: Tenant,
    /// `nodes_specs` is what was asked for.
    pub data: Map<String, Value>,
    /// The nodes lent.
    pub nodes: Vec<SessionNode>,
}

/// Asks for a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = SessionCreateModel))]
pub struct SessionCreate {
    /// For which tenant; only an administrator may name another than itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant_id: Option<i64>,
    /// How many nodes of which pools; all of them or none are granted.
    pub nodes_specs: Vec<NodesSpec>,
}

/// Asks for a session to be changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = SessionUpdateModel))]
pub struct SessionUpdate {
    /// `false` retires it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active: Option<bool>,
    /// A point of time (ISO 8601), or an offset to the current one (`+1h`, `-30m`).
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
