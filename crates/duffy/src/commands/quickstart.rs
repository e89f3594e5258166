//! `duffy quickstart`: everything, with simulated nodes, in a directory of its own.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::logging::LogLevel;

/// Where to keep things, where to listen.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  duffy quickstart                         Ctrl-C ends it; started again, it goes on
  duffy quickstart --dir /tmp/duffy -p 8090   Elsewhere, on another port")]
pub struct QuickstartArgs {
    /// Directory to keep database, keys and configuration in [default: duffy/quickstart below
    /// the XDG state home]
    #[arg(long)]
    pub dir: Option<PathBuf>,

    /// Host name or address to listen on [default: the installation's, at first 127.0.0.1]
    #[arg(short = 'H', long)]
    pub host: Option<String>,

    /// Port to listen on [default: the installation's, at first 8080 if it is free]
    #[arg(short, long, value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
}

/// Runs until a signal ends it.
#[cfg(feature = "server")]
pub fn main(args: &QuickstartArgs, loglevel: Option<LogLevel>) -> ExitCode {
    crate::logging::init(loglevel.unwrap_or(LogLevel::Warning));
    crate::output::finish(crate::quickstart::run(args))
}

/// Never reached: a feature is missing.
#[cfg(not(feature = "server"))]
pub fn main(_: &QuickstartArgs, _: Option<LogLevel>) -> ExitCode {
    ExitCode::FAILURE
}
