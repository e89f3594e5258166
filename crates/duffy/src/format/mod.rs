//! How the client's commands print what the API answered.

mod flat;
mod json;

use serde_json::Value;

use crate::commands::client::Format;
use crate::failure::Failure;

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
