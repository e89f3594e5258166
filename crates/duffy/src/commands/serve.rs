//! `duffy serve`: the web API.

use std::process::ExitCode;

use clap::Args;

use crate::config::Loaded;
#[cfg(feature = "server")]
use crate::output;
#[cfg(feature = "server")]
use crate::server::{self, Parts};

/// Where to listen.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  duffy serve                              As the configuration's `app` section says
  duffy -l debug serve -H 0.0.0.0 -p 8080  On all addresses, logging more")]
pub struct ServeArgs {
    /// Host name or address to listen on [default: the configuration's, else 127.0.0.1]
    #[arg(short = 'H', long)]
    pub host: Option<String>,

    /// Port to listen on, 0 for any free one [default: the configuration's, else 8080]
    #[arg(short, long)]
    pub port: Option<u16>,

    /// Accepted for unit files of the Python original; nothing reloads itself
    #[arg(long, overrides_with = "no_reload")]
    pub reload: bool,

    #[arg(long, hide = true, overrides_with = "reload")]
    no_reload: bool,
}

/// Serves until a signal ends it.
#[cfg(feature = "server")]
pub fn main(args: &ServeArgs, loaded: &Loaded) -> ExitCode {
    loaded.start_server_log(None);
    let (host, port) = listen_at(args.host.as_ref(), args.port, loaded);
    let parts = Parts::app(host, port);
    output::finish(server::run(loaded.config.clone(), parts, |_, _| async {}))
}

/// Where to listen: what the command says goes before the configuration.
#[cfg(feature = "server")]
pub(super) fn listen_at(
    host: Option<&String>,
    port: Option<u16>,
    loaded: &Loaded,
) -> (String, u16) {
    let app = loaded.config.app.clone().unwrap_or_default();
    (host.cloned().unwrap_or(app.host), port.unwrap_or(app.port))
}

/// Never reached: the feature is missing.
#[cfg(not(feature = "server"))]
pub fn main(_: &ServeArgs, _: &Loaded) -> ExitCode {
    ExitCode::FAILURE
}
