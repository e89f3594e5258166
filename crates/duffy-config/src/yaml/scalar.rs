//! The types of plain scalars, by PyYAML's rules for YAML 1.1.

use std::sync::LazyLock;

use base64::Engine as _;
use fancy_regex::Regex;

use super::node::Data;
use super::timestamp;

/// A scalar's type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tag {
    Null,
    Bool,
    Int,
    Float,
    Str,
    Timestamp,
    Binary,
    Merge,
    Value,
}

impl Tag {
    /// Returns the type for a tag's name, which follows `tag:yaml.org,2002:`.
    pub(super) fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "null" => Self::Null,
            "bool" => Self::Bool,
            "int" => Self::Int,
            "float" => Self::Float,
            "str" => Self::Str,
            "timestamp" => Self::Timestamp,
            "binary" => Self::Binary,
            _ => return None,
        })
    }
}

/// The patterns by which PyYAML's `resolver.py` recognizes types, except those of texts like `~` and `<<`. All are valid:
/// the tests compare each type with PyYAML.
static PATTERNS: LazyLock<Vec<(Tag, Regex)>> = LazyLock::new(|| {
    let types = [
        (
            Tag::Bool,
            "yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF",
        ),
        (
            Tag::Float,
            r"[-+]?[0-9][0-9_]*\.[0-9_]*([eE][-+][0-9]+)?|\.[0-9][0-9_]*([eE][-+][0-9]+)?|[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+\.[0-9_]*|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        ),
        (
            Tag::Int,
            "[-+]?0b[0-1_]+|[-+]?0[0-7_]+|[-+]?(0|[1-9][0-9_]*)|[-+]?0x[0-9a-fA-F_]+|[-+]?[1-9][0-9_]*(:[0-5]?[0-9])+",
        ),
        (Tag::Timestamp, timestamp::IMPLICIT),
    ];
    let regex = |pattern| Regex::new(&format!(r"\A(?:{pattern})\z")).ok();
    let types = types.into_iter();
    types
        .filter_map(|(tag, pattern)| Some((tag, regex(pattern)?)))
        .collect()
});

/// Returns the type that a plain scalar's text implies.
pub(super) fn resolve(text: &str) -> Tag {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Tag::Null,
        "<<" => Tag::Merge,
        "=" => Tag::Value,
        _ => {
            let mut types = PATTERNS.iter();
            let found = types.find(|(_, pattern)| pattern.is_match(text).unwrap_or(false));
            found.map_or(Tag::Str, |(tag, _)| *tag)
        }
    }
}

fn unsigned(text: &str) -> &str {
    text.strip_prefix(['-', '+']).unwrap_or(text)
}

/// Returns the value of a scalar of a type, or the problem with its text.
pub(super) fn construct(tag: Tag, text: &str) -> Result<Data, String> {
    match tag {
        Tag::Null => Ok(Data::Null),
        Tag::Str => Ok(Data::Text(text.to_owned())),
        Tag::Bool => match text.to_lowercase().as_str() {
            "yes" | "true" | "on" => Ok(Data::Bool(true)),
            "no" | "false" | "off" => Ok(Data::Bool(false)),
            _ => Err("!!bool takes yes, no, true, false, on or off".into()),
        },
        Tag::Int => construct_int(text).map(Data::Int),
        Tag::Float => construct_float(text)
            .map(Data::Float)
            .ok_or_else(|| "this is not a number; quote it if it is text".to_owned()),
        Tag::Timestamp => timestamp::print(text).map(Data::Timestamp).ok_or_else(|| {
            "this looks like a date but is not a valid one; quote it if it is text".into()
        }),
        Tag::Binary => {
            let compact: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
            base64::engine::general_purpose::STANDARD
                .decode(compact)
                .ok()
                .filter(|bytes| std::str::from_utf8(bytes).is_ok())
                .map(Data::Binary)
                .ok_or_else(|| "!!binary takes the base64 form of UTF-8 text here".into())
        }
        Tag::Merge => Err("<< merges mappings and is only a key; quote it if it is text".into()),
        Tag::Value => {
            Err("a single = has a special meaning in YAML 1.1; quote it if it is text".into())
        }
    }
}

fn construct_int(text: &str) -> Result<i128, String> {
    let no_number = || "this is not a whole number; quote it if it is text".to_owned();
    let too_large =
        || "this whole number does not fit 64 bits; quote it to make it text".to_owned();
    let compact = text.replace('_', "");
    let negative = compact.starts_with('-');
    let body = unsigned(&compact);
    let (digits, radix) = match body {
        "0" => ("0", 10),
        _ if body.starts_with("0b") => (&body[2..], 2),
        _ if body.starts_with("0x") => (&body[2..], 16),
        _ if body.starts_with('0') => (body, 8),
        _ => (body, 10),
    };
    let mut value: i128 = 0;
    for part in digits.split(':') {
        if part.is_empty()
            || !part.chars().all(|c| c.is_digit(radix))
            || (radix != 10 && digits.contains(':'))
        {
            return Err(no_number());
        }
        // An overflow of 128 bits is an overflow of 64 as well.
        let part = i128::from_str_radix(part, radix).map_err(|_| too_large())?;
        value = value
            .checked_mul(60)
            .and_then(|value| value.checked_add(part))
            .ok_or_else(too_large)?;
    }
    let value = if negative { -value } else { value };
    if value < i128::from(i64::MIN) || value > i128::from(u64::MAX) {
        Err(too_large())
    } else {
        Ok(value)
    }
}

fn construct_float(text: &str) -> Option<f64> {
    let compact = text.replace('_', "").to_lowercase();
    let sign = if compact.starts_with('-') { -1.0 } else { 1.0 };
    let body = unsigned(&compact);
    match body {
        ".inf" => return Some(sign * f64::INFINITY),
        ".nan" => return Some(f64::NAN),
        _ => {}
    }
    if !body.contains(':') {
        return body.trim().parse::<f64>().ok().map(|value| sign * value);
    }
    // From the last part to the first, for the same rounding as in Python.
    let mut base = 1.0_f64;
    let mut value = 0.0_f64;
    for part in body.rsplit(':') {
        value += part.trim().parse::<f64>().ok()? * base;
        base *= 60.0;
    }
    Some(sign * value)
}
