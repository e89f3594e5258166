//! Pools: alike nodes, kept filled.

use serde::{Deserialize, Serialize};

use crate::Action;

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
