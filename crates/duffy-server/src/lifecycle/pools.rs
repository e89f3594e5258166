//! Keeps pools at their fill levels.

pub mod drain;
pub mod fill;
pub mod repair;

use duffy_config::{NodePools, Pool};

use crate::context::Context;

/// Returns the pools of the configuration, in its order.
pub(crate) fn configured_pools(ctx: &Context) -> impl Iterator<Item = &Pool> {
    ctx.config.nodepools.iter().flat_map(NodePools::concrete)
}
