//! `duffy config`: checks and shows the configuration.

use std::process::ExitCode;

use clap::Subcommand;

use crate::config::Loaded;
use crate::failure::Failure;
use crate::output;

/// What to do with the configuration. Reading it has checked it already.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Check the configuration: files, keys, values
    #[command(after_help = "\
Example:
  duffy -c duffy.yaml config check

Wrong or unknown keys are told with file, line and path, exit code 1. Whether a command's \
sections are there is told by that command.")]
    Check,
    /// Show the configuration as it was merged from all files, as YAML
    #[command(after_help = "\
Example:
  duffy -c /etc/duffy -c local.yaml config dump

Keys and passwords are shown as they stand in the files.")]
    Dump,
}

impl ConfigCommand {
    pub const EXAMPLES: &str = "\
Examples:
  duffy config check                       The default files
  duffy -c duffy.yaml config dump          Another file";
}

/// Runs one of them.
pub fn main(command: &ConfigCommand, loaded: &Loaded) -> ExitCode {
    crate::logging::init(loaded.command_level());
    output::finish(match command {
        ConfigCommand::Check => check(loaded),
        ConfigCommand::Dump => output::data(&duffy_config::yaml::dump(&loaded.config.tree)),
    })
}

fn check(loaded: &Loaded) -> Result<(), Failure> {
    for warning in &loaded.config.warnings {
        output::words(&format!("warning: {warning}"));
    }
    if let Some(metaclient) = &loaded.config.metaclient {
        crate::permissions::check(metaclient, |warning| {
            output::words(&format!("warning: {warning}"));
        })?;
    }
    let sections = &loaded.config.sections;
    if sections.is_empty() {
        return output::data("Configuration is empty.");
    }
    output::data(&format!(
        "OK.\nValidated configuration subkeys: {}",
        sections.join(", ")
    ))
}
