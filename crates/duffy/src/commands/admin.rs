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
    match command {
        AdminCommand::Tenants(command) => {
            tenants::check(command)?;
            with_context(config, async |ctx| tenants::run(ctx, command).await)
        }
        // It needs no database.
        AdminCommand::GenerateUsermap(args) => tenants::generate_usermap(args),
        AdminCommand::Nodes(command) => {
            with_context(config, async |ctx| nodes::run(ctx, command).await)
        }
        AdminCommand::Pools(command) => {
            with_context(config, async |ctx| pools::run(ctx, command).await)
        }
        AdminCommand::History(command) => {
            with_context(config, async |ctx| history::run(ctx, command).await)
        }
        AdminCommand::Check(args) => with_context(config, async |ctx| check::run(ctx, args).await),
    }
}
