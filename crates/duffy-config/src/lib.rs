//! Duffy's configuration: YAML files to typed sections.

mod error;
mod python;
pub mod yaml;

pub use error::{ConfigError, Mark, Problem, YamlError};
