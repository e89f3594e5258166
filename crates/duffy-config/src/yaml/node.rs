//! Values with their positions.

use indexmap::IndexMap;
use serde_json::{Number, Value};

use crate::error::Mark;
use crate::python::float_repr;

/// A value and its position.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) data: Data,
    pub(crate) mark: Mark,
}

/// The types that PyYAML's safe loader distinguishes.
#[derive(Debug, Clone)]
pub(crate) enum Data {
    Null,
    Bool(bool),
    /// In the range of JSON numbers here: `i64::MIN..=u64::MAX`.
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

/// A key's position and its value.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) key_mark: Mark,
    /// Whether the key was text in the file, not for example a number.
    pub(crate) is_text: bool,
    pub(crate) value: Node,
}

impl Node {
    /// Converts the value to plain JSON. Dates become text, and numbers that JSON lacks become what Python prints for them.
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

    /// Returns the type's name for messages. Messages must not contain the value, which may be a secret.
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

    /// Whether the value is false in Python: such documents are skipped.
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

/// Converts a mapping to plain JSON, in the same order.
pub(crate) fn map_to_json(map: &Map) -> serde_json::Map<String, Value> {
    map.iter()
        .map(|(key, entry)| (key.clone(), entry.value.to_json()))
        .collect()
}
