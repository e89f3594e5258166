//! Reads JSON the way Python's `json` does: same leniency, same messages, same positions.
//!
//! `serde_json` would refuse `NaN` and long integers before the fields are looked at, and tells
//! neither the position in characters nor the words that clients get from the original.

use serde_json::{Map, Number, Value};

/// Deepest nesting of lists and objects; what is stored is read back by a parser with this limit.
const MAX_DEPTH: usize = 120;

/// Longest integer, in digits, that the original reads.
const MAX_DIGITS: usize = 4300;

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

    /// The value as it is shown in an error and stored: numbers that JSON has not are `null`,
    /// integers beyond 64 bits lose digits.
    pub fn to_value(&self) -> Value {
        match self {
            Json::Null => Value::Null,
            Json::Bool(value) => Value::Bool(*value),
            Json::Int(value) => {
                let number = i64::try_from(*value)
                    .map(Number::from)
                    .or_else(|_| u64::try_from(*value).map(Number::from));
                number.map_or_else(|_| float_value(*value as f64), Value::Number)
            }
            Json::BigInt(digits) => digits.parse().map_or(Value::Null, float_value),
            Json::Float(value) => float_value(*value),
            Json::Text(text) | Json::BrokenText(text) => Value::String(text.clone()),
            Json::List(items) => items.iter().map(Json::to_value).collect(),
            Json::Object(members) => Value::Object(
                members
                    .iter()
                    .map(|(name, value)| (name.clone(), value.to_value()))
                    .collect::<Map<_, _>>(),
            ),
        }
    }
}

fn float_value(value: f64) -> Value {
    Number::from_f64(value).map_or(Value::Null, Value::Number)
}

/// Why a text is no JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JsonError {
    /// It is wrong at a place.
    Syntax {
        /// Position, in characters from the start.
        position: u64,
        /// What was expected there.
        message: &'static str,
    },
    /// An integer is too long to be read.
    TooManyDigits,
}

/// Reads one JSON value with blanks around it.
pub fn parse(text: &str) -> Result<Json, JsonError> {
    let mut parser = Parser { text, depth: 0 };
    let start = parser.skip_blanks(0);
    let result = parser.value(start).and_then(|(value, end)| {
        let end = parser.skip_blanks(end);
        if end == text.len() {
            Ok(value)
        } else {
            Err(Fault::At(end, "Extra data"))
        }
    });
    result.map_err(|fault| match fault {
        Fault::At(at, message) => JsonError::Syntax {
            position: text
                .get(..at)
                .map_or(0, |before| before.chars().count() as u64),
            message,
        },
        Fault::TooManyDigits => JsonError::TooManyDigits,
    })
}

/// An error with its position in bytes.
enum Fault {
    At(usize, &'static str),
    TooManyDigits,
}

type Parsed<T> = Result<(T, usize), Fault>;

struct Parser<'a> {
    text: &'a str,
    depth: usize,
}

impl Parser<'_> {
    fn peek(&self, at: usize) -> Option<u8> {
        self.text.as_bytes().get(at).copied()
    }

    fn skip_blanks(&self, mut at: usize) -> usize {
        while matches!(self.peek(at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            at += 1;
        }
        at
    }

    fn value(&mut self, at: usize) -> Parsed<Json> {
        match self.peek(at) {
            Some(b'"') => {
                let ((text, whole), end) = self.string(at)?;
                let value = if whole {
                    Json::Text(text)
                } else {
                    Json::BrokenText(text)
                };
                Ok((value, end))
            }
            Some(b'{') => self.nested(at, Self::object),
            Some(b'[') => self.nested(at, Self::list),
            _ => self.word(at).map_or_else(|| self.number(at), Ok),
        }
    }

    fn nested(&mut self, at: usize, read: fn(&mut Self, usize) -> Parsed<Json>) -> Parsed<Json> {
        if self.depth == MAX_DEPTH {
            return Err(Fault::At(at, "Nested too deeply"));
        }
        self.depth += 1;
        let result = read(self, at + 1);
        self.depth -= 1;
        result
    }

    fn word(&self, at: usize) -> Option<(Json, usize)> {
        let words = [
            ("null", Json::Null),
            ("true", Json::Bool(true)),
            ("false", Json::Bool(false)),
            ("NaN", Json::Float(f64::NAN)),
            ("Infinity", Json::Float(f64::INFINITY)),
            ("-Infinity", Json::Float(f64::NEG_INFINITY)),
        ];
        let rest = self.text.get(at..)?;
        words
            .into_iter()
            .find(|(word, _)| rest.starts_with(word))
            .map(|(word, value)| (value, at + word.len()))
    }

    fn digits(&self, mut at: usize) -> usize {
        while self.peek(at).is_some_and(|byte| byte.is_ascii_digit()) {
            at += 1;
        }
        at
    }

    fn number(&self, start: usize) -> Parsed<Json> {
        let first = start + usize::from(self.peek(start) == Some(b'-'));
        let mut end = match self.peek(first) {
            Some(b'0') => first + 1,
            Some(b'1'..=b'9') => self.digits(first),
            _ => return Err(Fault::At(start, "Expecting value")),
        };
        let whole = end;
        if self.peek(end) == Some(b'.') && self.digits(end + 1) > end + 1 {
            end = self.digits(end + 1);
        }
        if matches!(self.peek(end), Some(b'e' | b'E')) {
            let sign = usize::from(matches!(self.peek(end + 1), Some(b'+' | b'-')));
            let exponent = end + 1 + sign;
            if self.digits(exponent) > exponent {
                end = self.digits(exponent);
            }
        }
        let text = self.text.get(start..end).unwrap_or_default();
        let value = if end > whole {
            Json::Float(text.parse().unwrap_or(f64::NAN))
        } else if end - first > MAX_DIGITS {
            return Err(Fault::TooManyDigits);
        } else {
            text.parse()
                .map_or_else(|_| Json::BigInt(text.to_owned()), Json::Int)
        };
        Ok((value, end))
    }

    fn list(&mut self, start: usize) -> Parsed<Json> {
        let mut items = Vec::new();
        let mut at = self.skip_blanks(start);
        if self.peek(at) == Some(b']') {
            return Ok((Json::List(items), at + 1));
        }
        loop {
            let (item, end) = self.value(at)?;
            items.push(item);
            at = self.skip_blanks(end);
            match self.peek(at) {
                Some(b']') => return Ok((Json::List(items), at + 1)),
                Some(b',') => at = self.skip_blanks(at + 1),
                _ => return Err(Fault::At(at, "Expecting ',' delimiter")),
            }
        }
    }

    fn object(&mut self, start: usize) -> Parsed<Json> {
        let mut members = Vec::new();
        let mut at = self.skip_blanks(start);
        if self.peek(at) == Some(b'}') {
            return Ok((Json::Object(members), at + 1));
        }
        loop {
            if self.peek(at) != Some(b'"') {
                let message = "Expecting property name enclosed in double quotes";
                return Err(Fault::At(at, message));
            }
            let ((name, _), end) = self.string(at)?;
            at = self.skip_blanks(end);
            if self.peek(at) != Some(b':') {
                return Err(Fault::At(at, "Expecting ':' delimiter"));
            }
            at = self.skip_blanks(at + 1);
            let (value, end) = self.value(at)?;
            members.push((name, value));
            at = self.skip_blanks(end);
            match self.peek(at) {
                Some(b'}') => return Ok((Json::Object(members), at + 1)),
                Some(b',') => at = self.skip_blanks(at + 1),
                _ => return Err(Fault::At(at, "Expecting ',' delimiter")),
            }
        }
    }

    /// Reads the string whose opening quote is at `start`; says also whether it is whole text.
    fn string(&self, start: usize) -> Parsed<(String, bool)> {
        let mut text = String::new();
        let mut whole = true;
        let mut high: Option<u32> = None;
        let mut at = start + 1;
        let mut run = at;
        loop {
            let Some(byte) = self.peek(at) else {
                return Err(Fault::At(start, "Unterminated string starting at"));
            };
            if byte > 0x1f && byte != b'"' && byte != b'\\' {
                at += 1;
                continue;
            }
            if byte <= 0x1f {
                return Err(Fault::At(at, "Invalid control character at"));
            }
            let plain = self.text.get(run..at).unwrap_or_default();
            if !plain.is_empty() || byte == b'"' {
                whole &= close_surrogate(&mut text, &mut high);
            }
            text.push_str(plain);
            if byte == b'"' {
                return Ok(((text, whole), at + 1));
            }
            if self.peek(at + 1) == Some(b'u') {
                let code = self
                    .hex(at + 2)
                    .ok_or(Fault::At(at + 1, "Invalid \\uXXXX escape"))?;
                whole &= push_code(&mut text, &mut high, code);
                at += 6;
            } else {
                whole &= close_surrogate(&mut text, &mut high);
                text.push(self.escape(start, at)?);
                at += 2;
            }
            run = at;
        }
    }

    /// The character that a backslash and one letter stand for.
    fn escape(&self, start: usize, at: usize) -> Result<char, Fault> {
        Ok(match self.peek(at + 1) {
            Some(plain @ (b'"' | b'\\' | b'/')) => char::from(plain),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(_) => return Err(Fault::At(at, "Invalid \\escape")),
            None => return Err(Fault::At(start, "Unterminated string starting at")),
        })
    }

    /// Four hexadecimal digits that are not the end of the text.
    fn hex(&self, at: usize) -> Option<u32> {
        let digits = self.text.get(at..at + 4)?;
        self.peek(at + 4)?;
        if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        u32::from_str_radix(digits, 16).ok()
    }
}

/// Puts a replacement for a first half of a pair that got no second one.
fn close_surrogate(text: &mut String, high: &mut Option<u32>) -> bool {
    if high.take().is_none() {
        return true;
    }
    text.push(char::REPLACEMENT_CHARACTER);
    false
}

/// Adds the character of a `\uXXXX`, which may be half of a pair.
fn push_code(text: &mut String, high: &mut Option<u32>, code: u32) -> bool {
    if let (Some(first), 0xdc00..=0xdfff) = (*high, code) {
        *high = None;
        let joined = 0x1_0000 + ((first - 0xd800) << 10) + (code - 0xdc00);
        text.push(char::from_u32(joined).unwrap_or(char::REPLACEMENT_CHARACTER));
        return true;
    }
    let whole = close_surrogate(text, high);
    match code {
        0xd800..=0xdbff => {
            *high = Some(code);
            whole
        }
        code => {
            let char = char::from_u32(code);
            text.push(char.unwrap_or(char::REPLACEMENT_CHARACTER));
            whole && char.is_some()
        }
    }
}
