//! Error replies: `{"detail": …}`, a text or a list of what is wrong with each field.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

/// The body of every reply with a status of 400 and above.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ErrorReply {
    /// What is wrong.
    pub detail: Detail,
}

/// What is wrong: one text, or a list with an entry for each field.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(untagged)]
pub enum Detail {
    /// A sentence for a person.
    Text(String),
    /// Each field of the request that did not fit.
    Fields(Vec<FieldError>),
}

// By hand, so that a detail of any other shape (a proxy's, say) is shown instead of refused.
impl<'de> Deserialize<'de> for Detail {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(d)?;
        Ok(match value {
            Value::String(text) => Detail::Text(text),
            other => match serde_json::from_value(other.clone()) {
                Ok(fields) => Detail::Fields(fields),
                Err(_) => Detail::Text(other.to_string()),
            },
        })
    }
}

impl std::fmt::Display for Detail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Detail::Text(text) => f.write_str(text),
            Detail::Fields(fields) => {
                for (n, field) in fields.iter().enumerate() {
                    if n > 0 {
                        f.write_str("; ")?;
                    }
                    for (n, part) in field.loc.iter().enumerate() {
                        if n > 0 {
                            f.write_str(".")?;
                        }
                        write!(f, "{part}")?;
                    }
                    write!(f, ": {}", field.msg)?;
                }
                Ok(())
            }
        }
    }
}

/// One field that did not fit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = ValidationError))]
pub struct FieldError {
    /// The kind of error, `missing` or `int_parsing` say.
    #[serde(rename = "type")]
    pub kind: String,
    /// Where: `body`, `path` or `query`, then members and positions.
    pub loc: Vec<Loc>,
    /// What is wrong, for a person.
    pub msg: String,
    /// What was found there.
    #[serde(default)]
    pub input: Value,
    /// Figures behind the message, the limit say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ctx: Option<Map<String, Value>>,
}

/// A step on the way to a field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(untagged)]
pub enum Loc {
    /// A member's name.
    Name(String),
    /// A position in a list, or of a character in the body.
    Index(u64),
}

impl std::fmt::Display for Loc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
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
