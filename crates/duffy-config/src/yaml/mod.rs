//! YAML 1.1 as PyYAML's safe loader reads it and its safe dumper writes it.
//!
//! Configuration values end in Ansible variables and templates, so `yes`, `0644` or `1:30` have to come out as they did
//! in the Python original. Each value keeps its place for error messages.

mod compose;
mod construct;
mod dump;
mod scalar;
mod timestamp;

use indexmap::IndexMap;
use serde_json::{Number, Value};

pub use dump::dump;

use crate::error::{Mark, YamlError};
use crate::python::float_repr;

/// Most nodes of one document after its aliases are resolved: far more than a real configuration has, and few enough
/// that a document of nested aliases cannot fill the memory.
const MAX_NODES: usize = 250_000;
/// Most bytes of text in one document after its aliases are resolved.
const MAX_BYTES: usize = 64 << 20;
/// Deepest nesting, aliases included.
const MAX_DEPTH: usize = 100;

/// A value and its place.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) data: Data,
    pub(crate) mark: Mark,
}

/// What PyYAML's safe loader tells apart.
#[derive(Debug, Clone)]
pub(crate) enum Data {
    Null,
    Bool(bool),
    /// Within what JSON numbers hold here: `i64::MIN..=u64::MAX`.
    Int(i128),
    Float(f64),
    Text(String),
    Binary(Vec<u8>),
    /// A date or time, as Python's `str()` prints it.
    Timestamp(String),
    List(Vec<Node>),
    Map(Map),
}

/// A mapping in file order.
pub(crate) type Map = IndexMap<String, Entry>;

/// A key's place and its value.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) key_mark: Mark,
    /// Whether the key was text in the file, not a number, say.
    pub(crate) is_text: bool,
    pub(crate) value: Node,
}

impl Node {
    /// The same as plain JSON. Dates become text, numbers that JSON lacks become what Python prints for them.
    pub(crate) fn to_json(&self) -> Value {
        match &self.data {
            Data::Null => Value::Null,
            Data::Bool(value) => Value::Bool(*value),
            Data::Int(value) => Number::from_i128(*value).map_or(Value::Null, Value::Number),
            Data::Float(value) => Number::from_f64(*value)
                .map_or_else(|| Value::String(float_repr(*value)), Value::Number),
            Data::Text(value) | Data::Timestamp(value) => Value::String(value.clone()),
            Data::Binary(value) => Value::String(String::from_utf8_lossy(value).into_owned()),
            Data::List(items) => items.iter().map(Self::to_json).collect(),
            Data::Map(map) => Value::Object(map_to_json(map)),
        }
    }

    /// What this is, in an operator's words, for messages. Never the value itself: it may be a secret.
    pub(crate) fn describe(&self) -> &'static str {
        match &self.data {
            Data::Null => "nothing",
            Data::Bool(_) => "yes/no (true or false)",
            Data::Int(_) => "a whole number",
            Data::Float(_) => "a number with a fraction",
            Data::Text(_) => "text",
            Data::Binary(_) => "binary data",
            Data::Timestamp(_) => "a date or time",
            Data::List(_) => "a list",
            Data::Map(_) => "a mapping",
        }
    }

    /// Whether Python counts it as false: such documents are skipped.
    pub(crate) fn is_empty(&self) -> bool {
        match &self.data {
            Data::Null => true,
            Data::Bool(value) => !value,
            Data::Int(value) => *value == 0,
            Data::Float(value) => *value == 0.0,
            Data::Text(value) => value.is_empty(),
            Data::Timestamp(_) => false,
            Data::Binary(value) => value.is_empty(),
            Data::List(items) => items.is_empty(),
            Data::Map(map) => map.is_empty(),
        }
    }
}

/// A mapping as plain JSON, in the same order.
pub(crate) fn map_to_json(map: &Map) -> serde_json::Map<String, Value> {
    map.iter()
        .map(|(key, entry)| (key.clone(), entry.value.to_json()))
        .collect()
}

/// The documents of a text with their places, and what is odd but legal in them.
pub(crate) fn parse_nodes(text: &str, file: &str) -> Result<(Vec<Node>, Vec<String>), YamlError> {
    let mut warnings = Vec::new();
    let documents = compose::compose(text, file)?;
    let nodes = documents
        .iter()
        .map(|raw| construct::construct(raw, &mut warnings))
        .collect::<Result<Vec<_>, _>>()?;
    Ok((nodes, warnings))
}

/// The documents of a YAML text as plain JSON, read as PyYAML's `safe_load_all` does.
///
/// `file` names the text in errors. Dates and times become the text that Python prints for them, keys that are no text
/// become the text that Python's `json` makes of them, `.inf` and `.nan` become `inf` and `nan`.
///
/// # Errors
/// The place and the reason: no YAML, an unknown tag, an alias that contains itself, too deep or too large.
pub fn parse(text: &str, file: &str) -> Result<Vec<Value>, YamlError> {
    Ok(parse_nodes(text, file)?
        .0
        .iter()
        .map(Node::to_json)
        .collect())
}
