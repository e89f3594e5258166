//! One value of a body to one Rust value. Coercions are those of the original: a number may come
//! as text or as a float without a fraction, a bool as `"yes"` or `1`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use chrono::TimeDelta;
use duffy_api::duration;
use uuid::Uuid;

use super::json::Json;
use super::problem::Problem;

/// Longest integer, in characters, that is read from a text.
const MAX_DIGITS: usize = 4300;

/// Longest lifetime: a session that starts today has to end before the year 9999, the last one
/// that databases and clients can write.
const MAX_LIFETIME: TimeDelta = TimeDelta::days(2_900_000);

/// An integer; beyond 128 bits the largest or smallest one.
pub fn integer(value: &Json) -> Result<i128, Problem> {
    match value {
        Json::Bool(value) => Ok(i128::from(*value)),
        Json::Int(value) => Ok(*value),
        Json::BigInt(digits) => Ok(saturated(digits)),
        Json::Float(value) if !value.is_finite() => Err(Problem::NotFinite),
        Json::Float(value) if value.fract() != 0.0 => Err(Problem::IntFromFloat),
        Json::Float(value) if value.abs() >= 9_223_372_036_854_775_808.0 => {
            Err(Problem::IntTooLong)
        }
        Json::Float(value) => Ok(*value as i128),
        Json::Text(text) => parse_integer(text.trim()),
        Json::BrokenText(_) => Err(Problem::IntParsing),
        Json::Null | Json::List(_) | Json::Object(_) => Err(Problem::NotAnInt),
    }
}

fn saturated(digits: &str) -> i128 {
    digits.parse().unwrap_or(if digits.starts_with('-') {
        i128::MIN
    } else {
        i128::MAX
    })
}

/// `12`, `+12`, `1_000` and `12.00`.
fn parse_integer(text: &str) -> Result<i128, Problem> {
    if text.len() > MAX_DIGITS {
        return Err(Problem::IntTooLong);
    }
    let whole = match text.split_once('.') {
        Some((whole, zeros)) if !zeros.is_empty() && zeros.bytes().all(|b| b == b'0') => whole,
        Some(_) => return Err(Problem::IntParsing),
        None => text,
    };
    let digits = whole.strip_prefix(['+', '-']).unwrap_or(whole);
    let groups_are_digits = digits
        .split('_')
        .all(|group| !group.is_empty() && group.bytes().all(|b| b.is_ascii_digit()));
    if !groups_are_digits {
        return Err(Problem::IntParsing);
    }
    Ok(saturated(&whole.replace('_', "")))
}

/// An integer of at least `least` and at most `most`.
pub fn integer_between(value: &Json, least: i64, most: i64) -> Result<i64, Problem> {
    let number = integer(value)?;
    if number < i128::from(least) {
        return Err(Problem::Below(least));
    }
    match i64::try_from(number) {
        Ok(number) if number <= most => Ok(number),
        _ => Err(Problem::Above(most)),
    }
}

/// The number of a row: any integer; one that no row can have becomes the largest.
pub fn row_id(value: &Json) -> Result<i64, Problem> {
    let number = integer(value)?;
    Ok(i64::try_from(number).unwrap_or(i64::MAX))
}

/// How many nodes a tenant may hold: more than 0, and what the database's column can hold.
pub fn quota(value: &Json) -> Result<i64, Problem> {
    integer_between(value, 1, i64::from(i32::MAX)).map_err(|problem| match problem {
        Problem::Below(_) => Problem::NotAbove(0),
        other => other,
    })
}

/// A bool.
pub fn boolean(value: &Json) -> Result<bool, Problem> {
    match value {
        Json::Bool(value) => Ok(*value),
        Json::Int(0) => Ok(false),
        Json::Int(1) => Ok(true),
        Json::Int(value) if i64::try_from(*value).is_ok() => Err(Problem::BoolParsing),
        Json::Float(value) if value.is_finite() && value.fract() == 0.0 => {
            if *value == 0.0 {
                Ok(false)
            } else if (*value - 1.0).abs() < f64::EPSILON {
                Ok(true)
            } else {
                Err(Problem::BoolParsing)
            }
        }
        Json::Text(text) => match text.to_ascii_lowercase().as_str() {
            "1" | "on" | "t" | "true" | "y" | "yes" => Ok(true),
            "0" | "off" | "f" | "false" | "n" | "no" => Ok(false),
            _ => Err(Problem::BoolParsing),
        },
        Json::BrokenText(_) => Err(Problem::BoolParsing),
        Json::Int(_)
        | Json::BigInt(_)
        | Json::Float(_)
        | Json::Null
        | Json::List(_)
        | Json::Object(_) => Err(Problem::NotABool),
    }
}

/// A text that can be stored: PostgreSQL has no NUL in texts.
pub fn text(value: &Json) -> Result<String, Problem> {
    match value {
        Json::Text(text) if text.contains('\0') => {
            Err(Problem::Value("a NUL character is not allowed".into()))
        }
        Json::Text(text) => Ok(text.clone()),
        Json::BrokenText(_) => Err(Problem::BrokenText),
        _ => Err(Problem::NotAText),
    }
}

/// SSH public keys, a line each.
pub fn ssh_keys(value: &Json) -> Result<String, Problem> {
    let keys = text(value)?;
    crate::credentials::check_ssh_keys(&keys).map_err(|error| Problem::Value(error.to_string()))?;
    Ok(keys)
}

/// A lifetime: `1h30m`, or seconds.
pub fn lifetime(value: &Json) -> Result<TimeDelta, Problem> {
    let parsed = match value {
        Json::Text(text) => duration::parse_lifetime(text),
        Json::Int(seconds) => duration::from_seconds(*seconds as f64),
        Json::Float(seconds) => duration::from_seconds(*seconds),
        Json::Bool(second) => duration::from_seconds(f64::from(u8::from(*second))),
        Json::BigInt(_) => Err(duration::DurationError::Range),
        Json::BrokenText(_) => Err(duration::DurationError::Format),
        Json::Null | Json::List(_) | Json::Object(_) => {
            let why = "a lifetime is a text like 1h30m or a number of seconds";
            return Err(Problem::Value(why.into()));
        }
    };
    match parsed {
        Ok(lifetime) if lifetime < TimeDelta::zero() => {
            Err(Problem::Value("a lifetime cannot be negative".into()))
        }
        Ok(lifetime) if lifetime > MAX_LIFETIME => {
            Err(Problem::Value(duration::DurationError::Range.to_string()))
        }
        Ok(lifetime) => Ok(lifetime),
        Err(error) => Err(Problem::Value(error.to_string())),
    }
}

/// A signed offset: `+1h`, `-30m`.
pub fn offset(value: &Json) -> Result<TimeDelta, Problem> {
    let why = match value {
        Json::Text(text) => match duration::parse_offset(text) {
            Ok(offset) if offset.abs() > MAX_LIFETIME => duration::DurationError::Range,
            Ok(offset) => return Ok(offset),
            Err(error) => error,
        },
        Json::BrokenText(_) => duration::DurationError::Format,
        _ => {
            let why = "an offset is a text like +1h30m or -30m";
            return Err(Problem::Value(why.into()));
        }
    };
    Err(Problem::Value(why.to_string()))
}

/// An IPv4 or IPv6 address, as text or as a number, in its usual form.
pub fn address(value: &Json) -> Result<String, Problem> {
    let number = match value {
        Json::Text(text) => return parse_address(text).ok_or(Problem::NotAnAddress),
        Json::Bool(value) => u128::from(*value),
        Json::Int(value) => u128::try_from(*value).map_err(|_| Problem::NotAnAddress)?,
        Json::BigInt(digits) => digits.parse().map_err(|_| Problem::NotAnAddress)?,
        Json::Null | Json::Float(_) | Json::BrokenText(_) | Json::List(_) | Json::Object(_) => {
            return Err(Problem::NotAnAddress);
        }
    };
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
pub fn uuid(value: &Json) -> Result<String, Problem> {
    match value {
        // The library reads this prefix in upper case too; the original did not.
        Json::Text(text) if text.starts_with("URN") => Err(Problem::UuidParsing(
            "invalid character: found `U` at 0".into(),
        )),
        Json::Text(text) => match Uuid::parse_str(text) {
            Ok(uuid) => Ok(uuid.hyphenated().to_string()),
            Err(error) => Err(Problem::UuidParsing(error.to_string())),
        },
        Json::BrokenText(_) => Err(Problem::UuidParsing("invalid character".into())),
        _ => Err(Problem::NotAUuid),
    }
}

/// This very text.
pub fn literal(value: &Json, expected: &'static str) -> Result<(), Problem> {
    match value {
        Json::Text(text) if text == expected => Ok(()),
        _ => Err(Problem::NotLiteral(expected)),
    }
}
