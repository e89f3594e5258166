//! The arguments of `duffy config`.

use clap::Subcommand;

/// What to do with the configuration.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  duffy config check                       The default files
  duffy -c duffy.yaml config dump          Another file")]
pub enum ConfigCommand {
    /// Check the configuration: files, keys, values
    #[command(after_help = "\
Example:
  duffy -c duffy.yaml config check

Wrong and unknown keys are reported with file, line and path; the exit code is then 1. Each \
command itself reports the sections that it needs and that are missing.")]
    Check,
    /// Show the configuration as merged from all files, as YAML
    #[command(after_help = "\
Example:
  duffy -c /etc/duffy -c local.yaml config dump

Keys and passwords are shown as they are in the files.")]
    Dump,
}
