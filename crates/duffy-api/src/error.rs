//! Error replies: `{"detail": …}`, a text or a list of errors by field.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The body of every reply with a status of 400 and above.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ErrorReply {
    /// What is wrong.
    pub detail: Detail,
}

/// What is wrong: one text, or a list with an entry for each field.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(untagged, from = "Value")]
pub enum Detail {
    /// A sentence for people.
    Text(String),
    /// The invalid fields of the request.
    Fields(Vec<FieldError>),
}

impl From<Value> for Detail {
    /// A detail of any other shape, for example of a proxy, becomes text.
    fn from(value: Value) -> Self {
        match value {
            Value::String(text) => Detail::Text(text),
            other => match Deserialize::deserialize(&other) {
                Ok(fields) => Detail::Fields(fields),
                Err(_) => Detail::Text(other.to_string()),
            },
        }
    }
}

impl fmt::Display for Detail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Detail::Text(text) => f.write_str(text),
            Detail::Fields(fields) => f.write_str(&join(fields, "; ")),
        }
    }
}

fn join(parts: &[impl ToString], separator: &str) -> String {
    let parts: Vec<_> = parts.iter().map(ToString::to_string).collect();
    parts.join(separator)
}

/// An invalid field.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = ValidationError))]
pub struct FieldError {
    /// The kind of error, for example `missing` or `int_parsing`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The path to the field: `body`, `path` or `query`, then members and positions.
    pub loc: Vec<Loc>,
    /// What is wrong, for people.
    pub msg: String,
    /// The value that was found.
    #[serde(default)]
    pub input: Value,
    /// Values in the message, for example the limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ctx: Option<Map<String, Value>>,
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", join(&self.loc, "."), self.msg)
    }
}

/// A step of the path to a field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(untagged)]
pub enum Loc {
    /// A member's name.
    Name(String),
    /// A position in a list, or of a character in the body.
    Index(u64),
}

impl fmt::Display for Loc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Loc::Name(name) => f.write_str(name),
            Loc::Index(index) => write!(f, "{index}"),
        }
    }
}

impl ErrorReply {
    /// A reply of one sentence.
    pub fn text(detail: impl Into<String>) -> Self {
        Self {
            detail: Detail::Text(detail.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_detail_is_read() {
        let text: ErrorReply = serde_json::from_str(r#"{"detail": "Not Found"}"#).unwrap();
        assert_eq!(text.detail.to_string(), "Not Found");
        let list: ErrorReply = serde_json::from_str(
            r#"{"detail": [{"type": "missing", "loc": ["body", "nodes_specs", 0], "msg": "Field required", "input": {}}]}"#,
        )
        .unwrap();
        assert_eq!(
            list.detail.to_string(),
            "body.nodes_specs.0: Field required"
        );
        let odd: ErrorReply = serde_json::from_str(r#"{"detail": {"a": 1}}"#).unwrap();
        assert_eq!(odd.detail.to_string(), r#"{"a":1}"#);
    }
}
