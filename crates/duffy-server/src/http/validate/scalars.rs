//! One value of a body to one Rust value. Coercions are those of the original: a number may come
//! as text or as a float without a fraction, a bool as `"yes"` or `1`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use chrono::TimeDelta;
use duffy_api::duration::{DurationError, from_seconds, parse_lifetime, parse_offset};
use uuid::Uuid;

use super::errors::{
    BOOL_PARSING, BROKEN_TEXT, INT_FROM_FLOAT, INT_PARSING, INT_TOO_LONG, NOT_A_BOOL, NOT_A_TEXT,
    NOT_A_UUID, NOT_AN_ADDRESS, NOT_AN_INT, NOT_FINITE, Read, Violation, forbidden, greater_than,
    less_than, not_greater_than, not_literal, uuid_parsing,
};
use super::json::{Json, MAX_DIGITS};

/// Longest lifetime: a session that starts today ends before the year 9999, the last one that
/// databases and clients can write.
const MAX_LIFETIME: TimeDelta = TimeDelta::days(2_900_000);

/// An integer; beyond 128 bits the largest or smallest one.
pub fn integer(value: &Json) -> Read<i128> {
    let number = match value {
        Json::Bool(value) => Ok(i128::from(*value)),
        Json::Int(value) => Ok(*value),
        Json::BigInt(digits) => Ok(saturated(digits)),
        Json::Float(value) if !value.is_finite() => Err(NOT_FINITE),
        Json::Float(value) if value.fract() != 0.0 => Err(INT_FROM_FLOAT),
        Json::Float(value) if value.abs() >= 9_223_372_036_854_775_808.0 => Err(INT_TOO_LONG),
        Json::Float(value) => Ok(*value as i128),
        Json::Text(text) => parse_integer(text.trim()),
        Json::BrokenText(_) => Err(INT_PARSING),
        Json::Null | Json::List(_) | Json::Object(_) => Err(NOT_AN_INT),
    };
    number.map_err(|violation| violation.of(value))
}

fn saturated(digits: &str) -> i128 {
    let limit = if digits.starts_with('-') {
        i128::MIN
    } else {
        i128::MAX
    };
    digits.parse().unwrap_or(limit)
}

/// `12`, `+12`, `1_000` and `12.00`.
fn parse_integer(text: &str) -> Result<i128, Violation> {
    if text.len() > MAX_DIGITS {
        return Err(INT_TOO_LONG);
    }
    let whole = match text.split_once('.') {
        Some((whole, zeros)) if !zeros.is_empty() && zeros.bytes().all(|b| b == b'0') => whole,
        Some(_) => return Err(INT_PARSING),
        None => text,
    };
    let digits = whole.strip_prefix(['+', '-']).unwrap_or(whole);
    let groups_are_digits = digits
        .split('_')
        .all(|group| !group.is_empty() && group.bytes().all(|b| b.is_ascii_digit()));
    if !groups_are_digits {
        return Err(INT_PARSING);
    }
    Ok(saturated(&whole.replace('_', "")))
}

/// An integer in a range.
pub fn integer_between<T>(value: &Json, range: RangeInclusive<T>) -> Read<T>
where
    T: Copy + PartialOrd + Into<i64> + TryFrom<i128>,
{
    let number = integer(value)?;
    let (least, most) = (range.start(), range.end());
    if number < i128::from((*least).into()) {
        return Err(less_than((*least).into()).of(value));
    }
    let number = T::try_from(number).ok().filter(|number| number <= most);
    number.ok_or_else(|| greater_than((*most).into()).of(value))
}

/// The number of a row: any integer. One that no row can have becomes the largest.
pub fn row_id(value: &Json) -> Read<i64> {
    let number = integer(value)?;
    Ok(i64::try_from(number).unwrap_or(i64::MAX))
}

/// How many nodes a tenant may hold: more than 0, and what the database's column can hold.
pub fn quota(value: &Json) -> Read<i64> {
    if integer(value)? < 1 {
        return Err(not_greater_than(0).of(value));
    }
    integer_between(value, 1..=i64::from(i32::MAX))
}

/// A bool.
pub fn boolean(value: &Json) -> Read<bool> {
    let boolean = match value {
        Json::Bool(false) | Json::Int(0) | Json::Float(0.0) => Ok(false),
        Json::Bool(true) | Json::Int(1) | Json::Float(1.0) => Ok(true),
        Json::Int(value) if i64::try_from(*value).is_err() => Err(NOT_A_BOOL),
        Json::Float(value) if !value.is_finite() || value.fract() != 0.0 => Err(NOT_A_BOOL),
        Json::Text(text) => match text.to_ascii_lowercase().as_str() {
            "1" | "on" | "t" | "true" | "y" | "yes" => Ok(true),
            "0" | "off" | "f" | "false" | "n" | "no" => Ok(false),
            _ => Err(BOOL_PARSING),
        },
        Json::Int(_) | Json::Float(_) | Json::BrokenText(_) => Err(BOOL_PARSING),
        Json::BigInt(_) | Json::Null | Json::List(_) | Json::Object(_) => Err(NOT_A_BOOL),
    };
    boolean.map_err(|violation| violation.of(value))
}

/// A text that can be stored: PostgreSQL has no NUL in texts.
pub fn text(value: &Json) -> Read<String> {
    match value {
        Json::Text(text) if !text.contains('\0') => Ok(text.clone()),
        Json::Text(_) => Err(forbidden("a NUL character is not allowed").of(value)),
        Json::BrokenText(_) => Err(BROKEN_TEXT.of(value)),
        _ => Err(NOT_A_TEXT.of(value)),
    }
}

/// SSH public keys, a line each.
pub fn ssh_keys(value: &Json) -> Read<String> {
    let keys = text(value)?;
    let checked = crate::credentials::check_ssh_keys(&keys);
    checked.map_err(|error| forbidden(error).of(value))?;
    Ok(keys)
}

/// A lifetime: `1h30m`, or seconds.
pub fn lifetime(value: &Json) -> Read<TimeDelta> {
    let parsed = match value {
        Json::Text(text) => parse_lifetime(text),
        Json::Int(seconds) => from_seconds(*seconds as f64),
        Json::Float(seconds) => from_seconds(*seconds),
        Json::Bool(second) => from_seconds(f64::from(u8::from(*second))),
        Json::BigInt(_) => Err(DurationError::Range),
        Json::BrokenText(_) => Err(DurationError::Format),
        Json::Null | Json::List(_) | Json::Object(_) => {
            let why = "a lifetime is a text like 1h30m or a number of seconds";
            return Err(forbidden(why).of(value));
        }
    };
    if parsed
        .as_ref()
        .is_ok_and(|length| *length < TimeDelta::zero())
    {
        return Err(forbidden("a lifetime cannot be negative").of(value));
    }
    bounded(parsed, value)
}

/// A signed offset: `+1h`, `-30m`.
pub fn offset(value: &Json) -> Read<TimeDelta> {
    match value {
        Json::Text(text) => bounded(parse_offset(text), value),
        Json::BrokenText(_) => bounded(Err(DurationError::Format), value),
        _ => Err(forbidden("an offset is a text like +1h30m or -30m").of(value)),
    }
}

/// A length of time that does not lead beyond the last year that can be written.
fn bounded(parsed: Result<TimeDelta, DurationError>, value: &Json) -> Read<TimeDelta> {
    let length = match parsed {
        Ok(length) if length.abs() > MAX_LIFETIME => Err(DurationError::Range),
        parsed => parsed,
    };
    length.map_err(|error| forbidden(error).of(value))
}

/// An IPv4 or IPv6 address, as text or as a number, in its usual form.
pub fn address(value: &Json) -> Read<String> {
    let number = match value {
        Json::Text(text) => return parse_address(text).ok_or_else(|| NOT_AN_ADDRESS.of(value)),
        Json::Bool(value) => Some(u128::from(*value)),
        Json::Int(value) => u128::try_from(*value).ok(),
        Json::BigInt(digits) => digits.parse().ok(),
        Json::Null | Json::Float(_) | Json::BrokenText(_) | Json::List(_) | Json::Object(_) => None,
    };
    let number = number.ok_or_else(|| NOT_AN_ADDRESS.of(value))?;
    Ok(match u32::try_from(number) {
        Ok(number) => Ipv4Addr::from_bits(number).to_string(),
        Err(_) => Ipv6Addr::from_bits(number).to_string(),
    })
}

fn parse_address(text: &str) -> Option<String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.to_string());
    }
    let (address, zone) = text.split_once('%')?;
    let address: Ipv6Addr = address.parse().ok()?;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | ':');
    (!zone.is_empty() && zone.chars().all(plain)).then(|| format!("{address}%{zone}"))
}

/// A UUID in any of its forms, made canonical.
pub fn uuid(value: &Json) -> Read<String> {
    let parsed = match value {
        // The library reads this prefix in upper case too; the original does not.
        Json::Text(text) if text.starts_with("URN") => {
            Err("invalid character: found `U` at 0".to_owned())
        }
        Json::Text(text) => Uuid::parse_str(text).map_err(|error| error.to_string()),
        Json::BrokenText(_) => Err("invalid character".to_owned()),
        _ => return Err(NOT_A_UUID.of(value)),
    };
    match parsed {
        Ok(uuid) => Ok(uuid.hyphenated().to_string()),
        Err(why) => Err(uuid_parsing(why).of(value)),
    }
}

/// This very text.
pub fn literal(value: &Json, expected: &'static str) -> Read<()> {
    match value {
        Json::Text(text) if text == expected => Ok(()),
        _ => Err(not_literal(expected).of(value)),
    }
}
