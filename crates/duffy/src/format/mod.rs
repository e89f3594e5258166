//! How the client's commands print what the API answered.

mod flat;
mod json;

use clap::ValueEnum;
use serde_json::Value;

use crate::failure::Failure;

/// The form in which replies are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Indented JSON, members in the server's order
    Json,
    /// YAML, members sorted
    Yaml,
    /// A line of shell assignments for each node or pool
    Flat,
}

impl Format {
    /// The text of a reply. Flat fails on a reply that lacks a member which it prints.
    pub fn render(self, reply: &Value) -> Result<String, Failure> {
        match self {
            Format::Json => Ok(json::render(reply)),
            Format::Yaml => Ok(duffy_config::yaml::dump(reply)),
            Format::Flat => flat::render(reply),
        }
    }
}
