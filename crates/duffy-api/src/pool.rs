//! Pools: sets of equal nodes, kept filled.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{Action, NodeState};

/// A pool in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = PoolConciseModel))]
pub struct PoolConcise {
    /// Name of the pool.
    pub name: String,
    /// How many nodes it keeps ready.
    #[serde(rename = "fill-level")]
    pub fill_level: u32,
}

/// A pool with the numbers of its nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = PoolVerboseModel))]
pub struct Pool {
    /// Name of the pool.
    pub name: String,
    /// How many nodes it keeps ready.
    #[serde(rename = "fill-level")]
    pub fill_level: u32,
    /// The numbers of its nodes by state.
    pub levels: PoolLevels,
    /// Present only if an operator has drained the pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub drained: Option<PoolDrained>,
    /// Work that the pool's mechanism fails at repeatedly; present only if there is any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failing: Vec<PoolFailing>,
}

/// An operator's drain of a pool, which is not filled meanwhile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = PoolDrainedModel))]
pub struct PoolDrained {
    /// Since when.
    #[serde(with = "crate::datetime::required")]
    pub since: DateTime<Utc>,
}

/// A kind of work that a pool's mechanism fails at repeatedly, with pauses between the attempts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = PoolFailingModel))]
pub struct PoolFailing {
    /// `provisioning` or `deprovisioning`.
    pub work: NodeState,
    /// How many attempts in a row failed.
    pub failures: u32,
    /// When the last attempt failed.
    #[serde(with = "crate::datetime::optional")]
    pub failed_at: Option<DateTime<Utc>>,
    /// When the next attempt follows.
    #[serde(with = "crate::datetime::required")]
    pub retry_at: DateTime<Utc>,
}

/// The numbers of a pool's nodes by state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = PoolLevelsModel))]
pub struct PoolLevels {
    /// Nodes that are made ready.
    pub provisioning: u64,
    /// Nodes that are ready for a session.
    pub ready: u64,
    /// Reserved nodes that get the tenant's key.
    pub contextualizing: u64,
    /// Nodes in sessions.
    pub deployed: u64,
    /// Nodes that are cleaned or removed.
    pub deprovisioning: u64,
}

/// One pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PoolResult {
    /// What was done.
    pub action: Action,
    /// The pool.
    pub pool: Pool,
}

/// Several pools.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PoolResultCollection {
    /// What was done.
    pub action: Action,
    /// The pools, in the order of the configuration.
    pub pools: Vec<PoolConcise>,
}
