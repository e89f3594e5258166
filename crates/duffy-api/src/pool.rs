//! Pools: alike nodes, kept filled.

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

/// A pool with the count of its nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = PoolVerboseModel))]
pub struct Pool {
    /// Name of the pool.
    pub name: String,
    /// How many nodes it keeps ready.
    #[serde(rename = "fill-level")]
    pub fill_level: u32,
    /// How many of its nodes are in which state.
    pub levels: PoolLevels,
    /// There only when an operator keeps the pool from being filled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub drained: Option<PoolDrained>,
    /// What the pool's mechanism fails at again and again; there only when it does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failing: Vec<PoolFailing>,
}

/// A pool that an operator keeps from being filled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = PoolDrainedModel))]
pub struct PoolDrained {
    /// Since when.
    #[serde(with = "crate::datetime::required")]
    pub since: DateTime<Utc>,
}

/// A kind of work that a pool's mechanism fails at again and again, and that is tried more rarely.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = PoolFailingModel))]
pub struct PoolFailing {
    /// `provisioning` or `deprovisioning`.
    pub work: NodeState,
    /// How many attempts in a row failed.
    pub failures: u32,
    /// When the last one did.
    #[serde(with = "crate::datetime::optional")]
    pub failed_at: Option<DateTime<Utc>>,
    /// When it is tried again.
    #[serde(with = "crate::datetime::required")]
    pub retry_at: DateTime<Utc>,
}

/// How many nodes of a pool are in which state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = PoolLevelsModel))]
pub struct PoolLevels {
    /// Being made ready.
    pub provisioning: u64,
    /// Waiting to be lent.
    pub ready: u64,
    /// Reserved, getting the tenant's key.
    pub contextualizing: u64,
    /// Lent.
    pub deployed: u64,
    /// Being cleaned or given back.
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
