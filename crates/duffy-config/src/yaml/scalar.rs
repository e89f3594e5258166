//! The types of plain scalars, by PyYAML's rules for YAML 1.1.

use base64::Engine as _;

use super::{Data, timestamp};

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
    /// The type of a tag's name, after `tag:yaml.org,2002:`.
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

/// The type that a plain scalar's text implies.
pub(super) fn resolve(text: &str) -> Tag {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Tag::Null,
        "<<" => Tag::Merge,
        "=" => Tag::Value,
        _ if is_bool(text) => Tag::Bool,
        _ if is_float(text) => Tag::Float,
        _ if is_int(text) => Tag::Int,
        _ if timestamp::is_timestamp(text) => Tag::Timestamp,
        _ => Tag::Str,
    }
}

fn is_bool(text: &str) -> bool {
    matches!(
        text,
        "yes"
            | "Yes"
            | "YES"
            | "no"
            | "No"
            | "NO"
            | "true"
            | "True"
            | "TRUE"
            | "false"
            | "False"
            | "FALSE"
            | "on"
            | "On"
            | "ON"
            | "off"
            | "Off"
            | "OFF"
    )
}

fn unsigned(text: &str) -> &str {
    text.strip_prefix(['-', '+']).unwrap_or(text)
}

fn all(text: &str, allowed: impl Fn(u8) -> bool) -> bool {
    text.bytes().all(allowed)
}

fn digits_and_underscores(text: &str) -> bool {
    all(text, |byte| byte.is_ascii_digit() || byte == b'_')
}

/// `[0-9][0-9_]*`
fn is_number_start(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit()) && digits_and_underscores(text)
}

/// Whether the text is `(:[0-5]?[0-9])+`, split at colons.
fn is_sixty(part: &str) -> bool {
    match part.as_bytes() {
        [digit] => digit.is_ascii_digit(),
        [ten, one] => (b'0'..=b'5').contains(ten) && one.is_ascii_digit(),
        _ => false,
    }
}

/// An exponent, which in YAML 1.1 needs its sign; or nothing.
fn is_exponent(text: &str) -> bool {
    let Some(rest) = text.strip_prefix(['e', 'E']) else {
        return text.is_empty();
    };
    rest.strip_prefix(['-', '+'])
        .is_some_and(|digits| !digits.is_empty() && all(digits, |byte| byte.is_ascii_digit()))
}

/// `[0-9_]*` and an exponent.
fn is_fraction(text: &str) -> bool {
    let end = text.find(['e', 'E']).unwrap_or(text.len());
    digits_and_underscores(&text[..end]) && is_exponent(&text[end..])
}

fn is_float(text: &str) -> bool {
    let body = unsigned(text);
    if matches!(body, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") {
        return true;
    }
    let Some((whole, fraction)) = body.split_once('.') else {
        return false;
    };
    if whole.is_empty() {
        // Without a whole part there is no sign either.
        return body.len() == text.len()
            && fraction.starts_with(|c: char| c.is_ascii_digit())
            && is_fraction(fraction);
    }
    let mut parts = whole.split(':');
    let starts_well = parts.next().is_some_and(is_number_start);
    if whole.contains(':') {
        starts_well && parts.all(is_sixty) && digits_and_underscores(fraction)
    } else {
        starts_well && is_fraction(fraction)
    }
}

fn is_int(text: &str) -> bool {
    let body = unsigned(text);
    if let Some(binary) = body.strip_prefix("0b") {
        return !binary.is_empty() && all(binary, |byte| matches!(byte, b'0' | b'1' | b'_'));
    }
    if let Some(hex) = body.strip_prefix("0x") {
        return !hex.is_empty() && all(hex, |byte| byte.is_ascii_hexdigit() || byte == b'_');
    }
    if body == "0" {
        return true;
    }
    if let Some(octal) = body.strip_prefix('0') {
        return all(octal, |byte| matches!(byte, b'0'..=b'7' | b'_'));
    }
    let mut parts = body.split(':');
    parts.next().is_some_and(is_number_start) && parts.all(is_sixty)
}

/// The value of a scalar with a type, or why there is none.
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
            .ok_or_else(|| "this is no number; quote it if it is text".to_owned()),
        Tag::Timestamp => timestamp::construct(text).map(Data::Timestamp),
        Tag::Binary => {
            let compact: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
            base64::engine::general_purpose::STANDARD
                .decode(compact)
                .ok()
                .filter(|bytes| std::str::from_utf8(bytes).is_ok())
                .map(Data::Binary)
                .ok_or_else(|| "!!binary takes the base64 form of UTF-8 text here".into())
        }
        Tag::Merge => {
            Err("<< merges mappings and stands only as a key; quote it if it is text".into())
        }
        Tag::Value => {
            Err("a lone = has a meaning of its own in YAML 1.1; quote it if it is text".into())
        }
    }
}

fn construct_int(text: &str) -> Result<i128, String> {
    let no_number = || "this is no whole number; quote it if it is text".to_owned();
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
    // From the last part on, in this order, for the same rounding as in Python.
    let mut base = 1.0_f64;
    let mut value = 0.0_f64;
    for part in body.rsplit(':') {
        value += part.trim().parse::<f64>().ok()? * base;
        base *= 60.0;
    }
    Some(sign * value)
}
