//! YAML 1.1 as PyYAML's safe loader reads it and its safe dumper writes it.
//!
//! Configuration values become Ansible variables and template variables, so `yes`, `0644` or `1:30` must have the same
//! values as in the Python original. Each value keeps its position for error messages.

mod compose;
mod construct;
mod dump;
mod node;
mod scalar;
mod timestamp;

use serde_json::Value;

pub use dump::dump;
pub(crate) use node::{Data, Entry, Map, Node, map_to_json};

use crate::error::YamlError;

/// Returns the documents of a text, and warnings about legal but odd parts.
pub(crate) fn parse_nodes(text: &str, file: &str) -> Result<(Vec<Node>, Vec<String>), YamlError> {
    let mut warnings = Vec::new();
    let documents = compose::compose(text, file)?;
    let nodes = documents
        .iter()
        .map(|raw| construct::construct(raw, &mut warnings))
        .collect::<Result<Vec<_>, _>>()?;
    Ok((nodes, warnings))
}

/// Reads the documents of a YAML text as PyYAML's `safe_load_all` does, and converts them to plain JSON.
///
/// `file` names the text in errors. Dates and times become the text that Python prints for them. Other keys than text
/// become the text that Python's `json` writes for them. `.inf` and `.nan` become `inf` and `nan`.
///
/// # Errors
/// The position and the reason: invalid YAML, an unknown tag, an alias that contains itself, too deep or too large.
pub fn parse(text: &str, file: &str) -> Result<Vec<Value>, YamlError> {
    Ok(parse_nodes(text, file)?
        .0
        .iter()
        .map(Node::to_json)
        .collect())
}
