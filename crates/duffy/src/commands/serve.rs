//! `duffy serve`: the web API.

use std::process::ExitCode;

use clap::Args;

use crate::config::Loaded;
use crate::failure::Failure;
use crate::output;

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
pub fn main(args: &ServeArgs, loaded: &Loaded) -> ExitCode {
    loaded.start_server_log(None);
    output::finish(Err(Failure(format!(
        "the web API is not part of this build yet: {:?}, {:?}",
        args.host, args.port
    ))))
}
