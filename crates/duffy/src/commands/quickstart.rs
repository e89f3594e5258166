//! `duffy quickstart`: a complete installation in a directory of its own.
//!
//! It has everything that an operator would write: a configuration file, an SQLite database and two key pairs. Only the nodes
//! are simulated.

mod guide;
mod installation;

use super::servers::{self, Parts};
use crate::args::servers::QuickstartArgs;
use crate::failure::Failure;

use installation::Installation;

/// Sets up what is missing, and runs until a signal ends it.
pub fn run(args: &QuickstartArgs) -> Result<(), Failure> {
    let installation = Installation::open(args)?;
    let config = installation.config()?;
    let app = config.app.clone().unwrap_or_default();
    let parts = Parts {
        app: Some((
            args.host.clone().unwrap_or(app.host),
            args.port.unwrap_or(app.port),
        )),
        worker: Some(config.tasks.concurrency),
        in_terminal: true,
        ..Parts::default()
    };
    servers::start(config, &parts, |ctx, address| {
        guide::guide(ctx, address, installation)
    })
}
