//! What can be wrong with a field: the kind, the words and the figures of each error.

use serde_json::{Map, Value, json};

/// What is wrong with one value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// A member that must be there is not.
    Missing,
    /// No object.
    NotAnObject,
    /// No object, where any members are allowed.
    NotADict,
    /// No list.
    NotAList,
    /// No text.
    NotAText,
    /// A text with half a surrogate pair.
    BrokenText,
    /// Neither an integer nor anything that could be one.
    NotAnInt,
    /// A text that is no integer.
    IntParsing,
    /// A number with a fraction.
    IntFromFloat,
    /// An integer with more digits than are read.
    IntTooLong,
    /// `NaN` or an infinity.
    NotFinite,
    /// Neither a bool nor anything that could be one.
    NotABool,
    /// A text or number that is neither yes nor no.
    BoolParsing,
    /// An integer that is too small.
    Below(i64),
    /// An integer that must be larger than this.
    NotAbove(i64),
    /// An integer that is larger than what can be stored.
    Above(i64),
    /// No text, where a UUID was expected.
    NotAUuid,
    /// A text that is no UUID, and why.
    UuidParsing(String),
    /// Another text than the only one allowed.
    NotLiteral(&'static str),
    /// No IP address.
    NotAnAddress,
    /// No point of time.
    NotADatetime,
    /// A text that is no point of time, and why.
    DatetimeParsing(&'static str),
    /// Anything else that a rule of ours forbids.
    Value(String),
    /// The body is no JSON, and why.
    JsonInvalid(&'static str),
}

impl Problem {
    /// The error's `type`.
    pub fn kind(&self) -> &'static str {
        match self {
            Problem::Missing => "missing",
            Problem::NotAnObject => "model_attributes_type",
            Problem::NotADict => "dict_type",
            Problem::NotAList => "list_type",
            Problem::NotAText => "string_type",
            Problem::BrokenText => "string_unicode",
            Problem::NotAnInt => "int_type",
            Problem::IntParsing => "int_parsing",
            Problem::IntFromFloat => "int_from_float",
            Problem::IntTooLong => "int_parsing_size",
            Problem::NotFinite => "finite_number",
            Problem::NotABool => "bool_type",
            Problem::BoolParsing => "bool_parsing",
            Problem::Below(_) => "greater_than_equal",
            Problem::NotAbove(_) => "greater_than",
            Problem::Above(_) => "less_than_equal",
            Problem::NotAUuid => "uuid_type",
            Problem::UuidParsing(_) => "uuid_parsing",
            Problem::NotLiteral(_) => "literal_error",
            Problem::NotAnAddress => "ip_any_address",
            Problem::NotADatetime => "datetime_type",
            Problem::DatetimeParsing(_) => "datetime_from_date_parsing",
            Problem::Value(_) => "value_error",
            Problem::JsonInvalid(_) => "json_invalid",
        }
    }

    /// The error's `msg`.
    pub fn message(&self) -> String {
        match self {
            Problem::Missing => "Field required".into(),
            Problem::NotAnObject => {
                "Input should be a valid dictionary or object to extract fields from".into()
            }
            Problem::NotADict => "Input should be a valid dictionary".into(),
            Problem::NotAList => "Input should be a valid list".into(),
            Problem::NotAText => "Input should be a valid string".into(),
            Problem::BrokenText => "Input should be a valid string, unable to parse raw data as \
                                    a unicode string"
                .into(),
            Problem::NotAnInt => "Input should be a valid integer".into(),
            Problem::IntParsing => {
                "Input should be a valid integer, unable to parse string as an integer".into()
            }
            Problem::IntFromFloat => {
                "Input should be a valid integer, got a number with a fractional part".into()
            }
            Problem::IntTooLong => {
                "Unable to parse input string as an integer, exceeded maximum size".into()
            }
            Problem::NotFinite => "Input should be a finite number".into(),
            Problem::NotABool => "Input should be a valid boolean".into(),
            Problem::BoolParsing => {
                "Input should be a valid boolean, unable to interpret input".into()
            }
            Problem::Below(limit) => {
                format!("Input should be greater than or equal to {limit}")
            }
            Problem::NotAbove(limit) => format!("Input should be greater than {limit}"),
            Problem::Above(limit) => format!("Input should be less than or equal to {limit}"),
            Problem::NotAUuid => "UUID input should be a string, bytes or UUID object".into(),
            Problem::UuidParsing(why) => format!("Input should be a valid UUID, {why}"),
            Problem::NotLiteral(expected) => format!("Input should be '{expected}'"),
            Problem::NotAnAddress => "value is not a valid IPv4 or IPv6 address".into(),
            Problem::NotADatetime => "Input should be a valid datetime".into(),
            Problem::DatetimeParsing(why) => {
                format!("Input should be a valid datetime or date, {why}")
            }
            Problem::Value(why) => format!("Value error, {why}"),
            Problem::JsonInvalid(_) => "JSON decode error".into(),
        }
    }

    /// The error's `ctx`: the figures behind the message.
    pub fn context(&self) -> Option<Map<String, Value>> {
        let (name, value) = match self {
            Problem::Below(limit) => ("ge", json!(limit)),
            Problem::NotAbove(limit) => ("gt", json!(limit)),
            Problem::Above(limit) => ("le", json!(limit)),
            Problem::UuidParsing(why) => ("error", json!(why)),
            Problem::NotLiteral(expected) => ("expected", json!(format!("'{expected}'"))),
            Problem::DatetimeParsing(why) | Problem::JsonInvalid(why) => ("error", json!(why)),
            Problem::Value(_) => ("error", json!({})),
            Problem::Missing
            | Problem::NotAnObject
            | Problem::NotADict
            | Problem::NotAList
            | Problem::NotAText
            | Problem::BrokenText
            | Problem::NotAnInt
            | Problem::IntParsing
            | Problem::IntFromFloat
            | Problem::IntTooLong
            | Problem::NotFinite
            | Problem::NotABool
            | Problem::BoolParsing
            | Problem::NotAUuid
            | Problem::NotAnAddress
            | Problem::NotADatetime => return None,
        };
        Some(Map::from_iter([(name.to_owned(), value)]))
    }
}
