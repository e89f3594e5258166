//! Reads JSON the way Python's `json` does: it accepts the same, and reports the same positions.
//!
//! `serde_json` refuses `NaN`, long integers and halves of surrogate pairs before the fields are
//! looked at, and does not report positions in characters.

use duffy_api::Loc;
use serde_json::{Map, Number, Value};

use super::errors::json_invalid;
use crate::http::error::ApiError;

/// Deepest nesting of lists and objects. The parser that reads stored data back has this limit.
const MAX_DEPTH: usize = 120;

/// Longest integer, in digits, that the original reads.
pub const MAX_DIGITS: usize = 4300;

/// A value of a request's body.
#[derive(Debug, Clone, PartialEq)]
pub enum Json {
    /// `null`.
    Null,
    /// `true`, `false`.
    Bool(bool),
    /// An integer that fits.
    Int(i128),
    /// An integer that does not: its sign and digits.
    BigInt(String),
    /// A number with a fraction or an exponent; also `NaN` and `Infinity`.
    Float(f64),
    /// A text.
    Text(String),
    /// A text with half a surrogate pair in it, shown with replacement characters.
    BrokenText(String),
    /// A list.
    List(Vec<Json>),
    /// Members in order; of equal names the last one counts.
    Object(Vec<(String, Json)>),
}

impl Json {
    /// The member of that name, when this is an object that has it.
    pub fn member(&self, name: &str) -> Option<&Json> {
        let Json::Object(members) = self else {
            return None;
        };
        let found = members.iter().rev().find(|(member, _)| member == name);
        found.map(|(_, value)| value)
    }
}

/// The value as an error shows it and as it is stored: `NaN` and infinities are `null`, integers
/// beyond 64 bits lose digits.
impl From<&Json> for Value {
    fn from(value: &Json) -> Self {
        match value {
            Json::Null => Value::Null,
            Json::Bool(value) => Value::Bool(*value),
            Json::Int(value) => {
                let number = Number::from_i128(*value);
                number.map_or_else(|| Value::from(*value as f64), Value::Number)
            }
            Json::BigInt(digits) => Value::from(digits.parse::<f64>().ok()),
            Json::Float(value) => Value::from(*value),
            Json::Text(text) | Json::BrokenText(text) => Value::String(text.clone()),
            Json::List(items) => items.iter().collect(),
            Json::Object(members) => {
                let members = members.iter();
                Value::Object(
                    members
                        .map(|(name, value)| (name.clone(), value.into()))
                        .collect(),
                )
            }
        }
    }
}

/// Reads one JSON value with blanks around it.
pub fn parse(text: &str) -> Result<Json, ApiError> {
    let mut parser = Parser {
        rest: text,
        depth: 0,
    };
    parser.document().map_err(|fault| match fault {
        Fault::Syntax { rest, message } => {
            let position = text.chars().count() - rest.chars().count();
            let errors = json_invalid(message).of(Map::new());
            errors
                .at(&Loc::Index(position as u64))
                .within("body")
                .into()
        }
        Fault::TooManyDigits => ApiError::UnreadableBody,
    })
}

/// Why a text is not JSON.
enum Fault<'a> {
    /// The text is wrong at this position.
    Syntax {
        rest: &'a str,
        message: &'static str,
    },
    /// An integer is too long to be read.
    TooManyDigits,
}

type Parsed<'a, T> = Result<T, Fault<'a>>;

fn syntax<'a, T>(rest: &'a str, message: &'static str) -> Parsed<'a, T> {
    Err(Fault::Syntax { rest, message })
}

struct Parser<'a> {
    /// What is not read yet.
    rest: &'a str,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn document(&mut self) -> Parsed<'a, Json> {
        self.skip_blanks();
        let value = self.value()?;
        self.skip_blanks();
        if self.rest.is_empty() {
            Ok(value)
        } else {
            syntax(self.rest, "Extra data")
        }
    }

    fn skip_blanks(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r']);
    }

    /// Reads this text if it comes next.
    fn skip(&mut self, text: &str) -> bool {
        let rest = self.rest.strip_prefix(text);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn value(&mut self) -> Parsed<'a, Json> {
        match self.rest.bytes().next() {
            Some(b'"') => self.string().map(|text| match text {
                (text, true) => Json::Text(text),
                (text, false) => Json::BrokenText(text),
            }),
            Some(b'{') => self.sequence("}", Self::member).map(Json::Object),
            Some(b'[') => self.sequence("]", Self::value).map(Json::List),
            _ => self.word().map_or_else(|| self.number(), Ok),
        }
    }

    fn word(&mut self) -> Option<Json> {
        let words = [
            ("null", Json::Null),
            ("true", Json::Bool(true)),
            ("false", Json::Bool(false)),
            ("NaN", Json::Float(f64::NAN)),
            ("Infinity", Json::Float(f64::INFINITY)),
            ("-Infinity", Json::Float(f64::NEG_INFINITY)),
        ];
        let mut words = words.into_iter();
        words.find_map(|(word, value)| self.skip(word).then_some(value))
    }

    fn number(&mut self) -> Parsed<'a, Json> {
        let start = self.rest;
        let unsigned = start.strip_prefix('-').unwrap_or(start);
        let fraction = unsigned
            .strip_prefix('0')
            .or_else(|| after_digits(unsigned));
        let Some(fraction) = fraction else {
            return syntax(start, "Expecting value");
        };
        let exponent = fraction
            .strip_prefix('.')
            .and_then(after_digits)
            .unwrap_or(fraction);
        let power = exponent.strip_prefix(['e', 'E']);
        let power = power.map(|power| power.strip_prefix(['+', '-']).unwrap_or(power));
        self.rest = power.and_then(after_digits).unwrap_or(exponent);
        let text = &start[..start.len() - self.rest.len()];
        if self.rest.len() < fraction.len() {
            Ok(Json::Float(text.parse().unwrap_or(f64::NAN)))
        } else if unsigned.len() - fraction.len() > MAX_DIGITS {
            Err(Fault::TooManyDigits)
        } else {
            let number = text.parse().map(Json::Int);
            Ok(number.unwrap_or_else(|_| Json::BigInt(text.to_owned())))
        }
    }

    /// Reads a list or an object: its opening bracket comes next.
    fn sequence<T>(
        &mut self,
        close: &str,
        item: fn(&mut Self) -> Parsed<'a, T>,
    ) -> Parsed<'a, Vec<T>> {
        if self.depth == MAX_DEPTH {
            return syntax(self.rest, "Nested too deeply");
        }
        self.depth += 1;
        self.rest = &self.rest[1..];
        self.skip_blanks();
        let mut items = Vec::new();
        while !self.skip(close) {
            if !items.is_empty() && !self.skip(",") {
                return syntax(self.rest, "Expecting ',' delimiter");
            }
            self.skip_blanks();
            items.push(item(self)?);
            self.skip_blanks();
        }
        self.depth -= 1;
        Ok(items)
    }

    fn member(&mut self) -> Parsed<'a, (String, Json)> {
        if !self.rest.starts_with('"') {
            let message = "Expecting property name enclosed in double quotes";
            return syntax(self.rest, message);
        }
        let (name, _) = self.string()?;
        self.skip_blanks();
        if !self.skip(":") {
            return syntax(self.rest, "Expecting ':' delimiter");
        }
        self.skip_blanks();
        Ok((name, self.value()?))
    }

    /// Reads a string, whose opening quote comes next. Also returns whether it is whole: without
    /// halves of surrogate pairs.
    fn string(&mut self) -> Parsed<'a, (String, bool)> {
        let unterminated = Fault::Syntax {
            rest: self.rest,
            message: "Unterminated string starting at",
        };
        let mut units: Vec<u16> = Vec::new();
        let mut chars = self.rest[1..].chars();
        loop {
            let at = chars.as_str();
            match chars.next() {
                None => return Err(unterminated),
                Some('"') => break,
                Some('\0'..='\x1f') => return syntax(at, "Invalid control character at"),
                Some('\\') => match chars.next() {
                    None => return Err(unterminated),
                    Some('u') => {
                        units.push(code_unit(&at[1..])?);
                        chars = at[6..].chars();
                    }
                    Some(letter) => match escaped(letter) {
                        None => return syntax(at, "Invalid \\escape"),
                        Some(unit) => units.push(unit.into()),
                    },
                },
                Some(plain) => units.extend_from_slice(plain.encode_utf16(&mut [0; 2])),
            }
        }
        self.rest = chars.as_str();
        Ok(match String::from_utf16(&units) {
            Ok(text) => (text, true),
            Err(_) => (String::from_utf16_lossy(&units), false),
        })
    }
}

/// What follows the digits with which a text begins, if it begins with one.
fn after_digits(text: &str) -> Option<&str> {
    let rest = text.trim_start_matches(|c: char| c.is_ascii_digit());
    (rest.len() < text.len()).then_some(rest)
}

/// The character that a backslash and this letter stand for.
fn escaped(letter: char) -> Option<u8> {
    Some(match letter {
        '"' | '\\' | '/' => letter as u8,
        'b' => b'\x08',
        'f' => b'\x0c',
        'n' => b'\n',
        'r' => b'\r',
        't' => b'\t',
        _ => return None,
    })
}

/// Reads `u` and four hexadecimal digits that are not the end of the text.
fn code_unit(rest: &str) -> Parsed<'_, u16> {
    let digits = rest.get(1..5).filter(|_| rest.len() > 5);
    let digits = digits.filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
    match digits.map(|digits| u16::from_str_radix(digits, 16)) {
        Some(Ok(unit)) => Ok(unit),
        _ => syntax(rest, "Invalid \\uXXXX escape"),
    }
}
