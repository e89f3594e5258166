//! `duffy config`: checks and shows the configuration.

use duffy_config::Config;

use crate::args::config::ConfigCommand;
use crate::failure::Failure;
use crate::output;
use crate::permissions;

/// Checks or shows the configuration. Loading it has checked most of it already.
pub fn run(command: &ConfigCommand, config: &Config) -> Result<(), Failure> {
    match command {
        ConfigCommand::Check => check(config),
        ConfigCommand::Dump => output::data(&duffy_config::yaml::dump(&config.tree)),
    }
}

fn check(config: &Config) -> Result<(), Failure> {
    let warn = |warning: &str| output::words(&format!("warning: {warning}"));
    config.warnings.iter().for_each(|warning| warn(warning));
    if let Some(metaclient) = &config.metaclient {
        permissions::check(metaclient, warn)?;
    }
    if config.sections.is_empty() {
        return output::data("Configuration is empty.");
    }
    output::data(&format!(
        "OK.\nValidated configuration subkeys: {}",
        config.sections.join(", ")
    ))
}
