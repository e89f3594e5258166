//! What `duffy quickstart` does: a whole installation in a directory of its own.
//!
//! Everything in it is what an operator would write: a configuration file, a SQLite database,
//! two key pairs. Only the nodes are simulated.

mod guide;
mod installation;

use crate::commands::quickstart::QuickstartArgs;
use crate::failure::Failure;
use crate::server::{self, Parts};

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
        #[cfg(feature = "legacy")]
        legacy: None,
        ignores_hangup: false,
    };
    server::run(config, parts, move |ctx, address| {
        guide::guide(ctx, address, installation)
    })
}
