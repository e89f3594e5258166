//! `duffy admin`: manages tenants, nodes, pools and the history in the database.

mod check;
mod history;
mod nodes;
mod old_dump;
mod pools;
mod print;
mod tenants;

use std::sync::Arc;

use duffy_config::Config;

use super::database::with_context;
use crate::args::admin::AdminCommand;
use crate::failure::Failure;

/// Runs a command.
pub fn run(command: &AdminCommand, config: &Arc<Config>) -> Result<(), Failure> {
    if let AdminCommand::Tenants(command) = command {
        tenants::check(command)?;
    }
    with_context(config, async |ctx| match command {
        AdminCommand::Tenants(command) => tenants::run(ctx, command).await,
        AdminCommand::Nodes(command) => nodes::run(ctx, command).await,
        AdminCommand::Pools(command) => pools::run(ctx, command).await,
        AdminCommand::History(command) => history::run(ctx, command).await,
        AdminCommand::Check(args) => check::run(ctx, args).await,
    })
}
