//! `duffy run`: web API and worker in one process.

use std::process::ExitCode;

use clap::Args;

use crate::config::Loaded;
use crate::failure::Failure;
use crate::output;

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
pub fn main(args: &RunArgs, loaded: &Loaded) -> ExitCode {
    loaded.start_server_log(None);
    output::finish(Err(Failure(format!(
        "the server is not part of this build yet: {args:?}"
    ))))
}
