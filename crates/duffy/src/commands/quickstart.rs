//! `duffy quickstart`: everything, with simulated nodes, in a directory of its own.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::failure::Failure;
use crate::logging::LogLevel;
use crate::output;

/// Where to keep things, where to listen.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  duffy quickstart                         Ctrl-C ends it; started again, it goes on
  duffy quickstart --dir /tmp/duffy -p 0   Elsewhere, on any free port")]
pub struct QuickstartArgs {
    /// Directory to keep database, keys and configuration in [default: duffy/quickstart below
    /// the XDG state home]
    #[arg(long)]
    pub dir: Option<PathBuf>,

    /// Host name or address to listen on
    #[arg(short = 'H', long, default_value = "127.0.0.1")]
    pub host: String,

    /// Port to listen on, 0 for any free one
    #[arg(short, long, default_value_t = 8080)]
    pub port: u16,
}

/// Runs until a signal ends it.
pub fn main(args: &QuickstartArgs, loglevel: Option<LogLevel>) -> ExitCode {
    crate::logging::init(loglevel.unwrap_or(LogLevel::Warning));
    output::finish(Err(Failure(format!(
        "the server is not part of this build yet: {args:?}"
    ))))
}
