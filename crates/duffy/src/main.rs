//! The `duffy` command.

use clap::Parser;

/// Lend pools of provisioned machines to CI jobs as time-limited sessions.
#[derive(Debug, Parser)]
#[command(name = "duffy", version)]
struct Cli {}

fn main() {
    Cli::parse();
}
