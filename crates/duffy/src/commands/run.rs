//! `duffy run`: web API and worker in one process, and the old API where it is configured.

use std::process::ExitCode;

use clap::Args;

use crate::config::Loaded;
#[cfg(all(feature = "server", feature = "legacy"))]
use crate::legacy::Overrides;
#[cfg(feature = "server")]
use crate::output;
#[cfg(feature = "server")]
use crate::server::{self, Parts};

/// Where to listen, how much to do at once.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  duffy run                                As the configuration says
  duffy -c duffy.yaml run -p 8081          On another port")]
pub struct RunArgs {
    /// Host name or address to listen on [default: the configuration's, else 127.0.0.1]
    #[arg(short = 'H', long)]
    pub host: Option<String>,

    /// Port to listen on, 0 for any free one [default: the configuration's, else 8080]
    #[arg(short, long)]
    pub port: Option<u16>,

    /// How many nodes to work on at once [default: the configuration's]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub concurrency: Option<u32>,
}

/// Runs until a signal ends it.
#[cfg(feature = "server")]
pub fn main(args: &RunArgs, loaded: &Loaded) -> ExitCode {
    loaded.start_server_log(None);
    if cfg!(not(feature = "legacy")) && loaded.config.metaclient.is_some() {
        tracing::warn!("this build lacks the feature `legacy`: the old API is not served");
    }
    let parts = Parts {
        app: Some(super::serve::listen_at(
            args.host.as_ref(),
            args.port,
            loaded,
        )),
        worker: Some(super::worker::concurrency(args.concurrency, loaded)),
        #[cfg(feature = "legacy")]
        legacy: loaded
            .config
            .metaclient
            .as_ref()
            .map(|_| Overrides::default()),
        ignores_hangup: true,
    };
    output::finish(server::run(loaded.config.clone(), parts, |_, _| async {}))
}

/// Never reached: a feature is missing.
#[cfg(not(feature = "server"))]
pub fn main(_: &RunArgs, _: &Loaded) -> ExitCode {
    ExitCode::FAILURE
}
