//! What can be wrong with a value: the type, the message and the figures of each error.

use std::borrow::Cow;

use duffy_api::{FieldError, Loc};
use serde_json::{Map, Value};

/// Most errors in one reply: it stays small however long a list the body has.
const MAX_ERRORS: usize = 1000;
/// Most bytes of names in the paths of several errors. Without it, each error would repeat a long name from the body.
const MAX_NAMES: usize = 1024 * 1024;

/// What is wrong with a value: the error's `type`, `msg` and `ctx`.
#[derive(Debug)]
pub struct Violation {
    kind: &'static str,
    message: Cow<'static, str>,
    context: Option<Box<Map<String, Value>>>,
}

/// A required member is not there.
pub const MISSING: Violation = Violation::new("missing", "Field required");
/// Not an object.
pub const NOT_AN_OBJECT: Violation = Violation::new(
    "model_attributes_type",
    "Input should be a valid dictionary or object to extract fields from",
);
/// Not an object, where any members are allowed.
pub const NOT_A_DICT: Violation = Violation::new("dict_type", "Input should be a valid dictionary");
/// Not a list.
pub const NOT_A_LIST: Violation = Violation::new("list_type", "Input should be a valid list");
/// Not a text.
pub const NOT_A_TEXT: Violation = Violation::new("string_type", "Input should be a valid string");
/// A text with half a surrogate pair.
pub const BROKEN_TEXT: Violation = Violation::new(
    "string_unicode",
    "Input should be a valid string, unable to parse raw data as a unicode string",
);
/// Neither an integer nor anything that can be one.
pub const NOT_AN_INT: Violation = Violation::new("int_type", "Input should be a valid integer");
/// A text that is not an integer.
pub const INT_PARSING: Violation = Violation::new(
    "int_parsing",
    "Input should be a valid integer, unable to parse string as an integer",
);
/// A number with a fraction.
pub const INT_FROM_FLOAT: Violation = Violation::new(
    "int_from_float",
    "Input should be a valid integer, got a number with a fractional part",
);
/// An integer with more digits than are read.
pub const INT_TOO_LONG: Violation = Violation::new(
    "int_parsing_size",
    "Unable to parse input string as an integer, exceeded maximum size",
);
/// `NaN` or an infinity.
pub const NOT_FINITE: Violation =
    Violation::new("finite_number", "Input should be a finite number");
/// Neither a bool nor anything that can be one.
pub const NOT_A_BOOL: Violation = Violation::new("bool_type", "Input should be a valid boolean");
/// A text or number that is neither yes nor no.
pub const BOOL_PARSING: Violation = Violation::new(
    "bool_parsing",
    "Input should be a valid boolean, unable to interpret input",
);
/// Not a text, where a UUID is expected.
pub const NOT_A_UUID: Violation = Violation::new(
    "uuid_type",
    "UUID input should be a string, bytes or UUID object",
);
/// Not an IP address.
pub const NOT_AN_ADDRESS: Violation = Violation::new(
    "ip_any_address",
    "value is not a valid IPv4 or IPv6 address",
);
/// Not a text, where a point of time is expected.
pub const NOT_A_DATETIME: Violation =
    Violation::new("datetime_type", "Input should be a valid datetime");

/// An integer that is less than the least one allowed.
pub fn less_than(least: i64) -> Violation {
    let message = format!("Input should be greater than or equal to {least}");
    Violation::with("greater_than_equal", message, "ge", least)
}

/// An integer that is not greater than this one.
pub fn not_greater_than(limit: i64) -> Violation {
    let message = format!("Input should be greater than {limit}");
    Violation::with("greater_than", message, "gt", limit)
}

/// An integer that is greater than the greatest one allowed.
pub fn greater_than(most: i64) -> Violation {
    let message = format!("Input should be less than or equal to {most}");
    Violation::with("less_than_equal", message, "le", most)
}

/// A text that is not a UUID, and why.
pub fn uuid_parsing(why: String) -> Violation {
    let message = format!("Input should be a valid UUID, {why}");
    Violation::with("uuid_parsing", message, "error", why)
}

/// Another text than the only one allowed.
pub fn not_literal(expected: &str) -> Violation {
    let expected = format!("'{expected}'");
    let message = format!("Input should be {expected}");
    Violation::with("literal_error", message, "expected", expected)
}

/// A text that is not a point of time, and why.
pub fn datetime_parsing(why: &str) -> Violation {
    let message = format!("Input should be a valid datetime or date, {why}");
    Violation::with("datetime_from_date_parsing", message, "error", why)
}

/// A value that one of our own rules forbids, and why.
pub fn forbidden(why: impl std::fmt::Display) -> Violation {
    let message = format!("Value error, {why}");
    Violation::with("value_error", message, "error", Map::new())
}

/// A body that is not JSON, and why.
pub fn json_invalid(why: &str) -> Violation {
    Violation::with("json_invalid", "JSON decode error".into(), "error", why)
}

impl Violation {
    const fn new(kind: &'static str, message: &'static str) -> Self {
        Self {
            kind,
            message: Cow::Borrowed(message),
            context: None,
        }
    }

    fn with(
        kind: &'static str,
        message: String,
        name: &'static str,
        figure: impl Into<Value>,
    ) -> Self {
        let context = Map::from_iter([(name.to_owned(), figure.into())]);
        Self {
            kind,
            message: message.into(),
            context: Some(Box::new(context)),
        }
    }

    /// The error about a value.
    pub fn of(self, input: impl Into<Value>) -> Errors {
        Errors {
            fields: vec![FieldError {
                kind: self.kind.to_owned(),
                loc: Vec::new(),
                msg: self.message.into_owned(),
                input: input.into(),
                ctx: self.context.map(|context| *context),
            }],
            names: 0,
        }
    }
}

/// A value that was read, or everything that is wrong with it.
pub type Read<T> = Result<T, Errors>;

/// What is wrong with a value and the values in it, in the order in which it was found. The paths
/// lead from the inside out and end at the value.
#[derive(Debug, Default)]
#[must_use]
pub struct Errors {
    fields: Vec<FieldError>,
    /// How many bytes the names in all paths have.
    names: usize,
}

impl Errors {
    /// The errors as seen from the value that has this one at `step`.
    pub fn at(mut self, step: &Loc) -> Self {
        let name = name_length(step);
        while self.fields.len() > 1 && self.names + name * self.fields.len() > MAX_NAMES {
            self.drop_last();
        }
        self.names += name * self.fields.len();
        for error in &mut self.fields {
            error.loc.push(step.clone());
        }
        self
    }

    /// The errors as seen from the object that has this value as its member `name`.
    pub fn within(self, name: &str) -> Self {
        self.at(&Loc::Name(name.to_owned()))
    }

    /// Returns the value of a result, or records its errors.
    pub fn record<T>(&mut self, result: Read<T>) -> Option<T> {
        result.map_err(|errors| self.append(errors)).ok()
    }

    /// Adds errors, as many as fit in a reply.
    pub fn append(&mut self, other: Self) {
        self.fields.extend(other.fields);
        self.names += other.names;
        while self.fields.len() > MAX_ERRORS || (self.names > MAX_NAMES && self.fields.len() > 1) {
            self.drop_last();
        }
    }

    fn drop_last(&mut self) {
        if let Some(error) = self.fields.pop() {
            self.names -= error.loc.iter().map(name_length).sum::<usize>();
        }
    }

    /// Whether there are as many errors as fit in a reply.
    pub fn is_full(&self) -> bool {
        self.fields.len() >= MAX_ERRORS || self.names >= MAX_NAMES
    }

    /// Returns the value if there are no errors.
    pub fn finish<T>(self, value: T) -> Read<T> {
        if self.fields.is_empty() {
            Ok(value)
        } else {
            Err(self)
        }
    }

    /// The errors as the reply has them, with paths from the outside in.
    pub fn into_fields(mut self) -> Vec<FieldError> {
        for error in &mut self.fields {
            error.loc.reverse();
        }
        self.fields
    }
}

fn name_length(step: &Loc) -> usize {
    match step {
        Loc::Name(name) => name.len(),
        Loc::Index(_) => 0,
    }
}
