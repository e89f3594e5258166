//! Points of time as the original reads them: ISO 8601 in several spellings, a date alone, or a
//! number of seconds or milliseconds since 1970 as text.

use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, Utc};

use super::errors::{NOT_A_DATETIME, Read, datetime_parsing};
use super::json::Json;

const TOO_SHORT: &str = "input is too short";
const EXTRA: &str = "unexpected extra characters at the end of the input";

/// Numbers beyond this (in seconds, the year 2603) are milliseconds, not seconds.
const MILLISECONDS_FROM: i128 = 20_000_000_000;

/// A point of time. Without a time zone it is UTC.
pub fn datetime(value: &Json) -> Read<DateTime<Utc>> {
    let parsed = match value {
        Json::Text(text) => parse(text),
        Json::BrokenText(_) => Err("invalid character in year"),
        _ => return Err(NOT_A_DATETIME.of(value)),
    };
    parsed.map_err(|why| datetime_parsing(why).of(value))
}

fn parse(text: &str) -> Result<DateTime<Utc>, &'static str> {
    if let Some(time) = parse_number(text) {
        return time;
    }
    // The original counts characters, not bytes, and accepts the minus sign U+2212.
    let text = text.replace('\u{2212}', "-");
    let bytes = text.as_bytes();
    let date = parse_date(bytes)?;
    let Some((separator, time)) = bytes.get(10..).and_then(<[u8]>::split_first) else {
        return utc(date.and_time(NaiveTime::MIN), 0);
    };
    if !matches!(separator, b'T' | b't' | b' ' | b'_') {
        return Err(EXTRA);
    }
    let (time, rest) = parse_time(time).ok_or(EXTRA)?;
    let offset = match rest {
        [] | [b'Z' | b'z'] => 0,
        [b'+', rest @ ..] => parse_offset(rest).ok_or(EXTRA)?,
        [b'-', rest @ ..] => -parse_offset(rest).ok_or(EXTRA)?,
        _ => return Err(EXTRA),
    };
    utc(date.and_time(time), offset)
}

/// The point of time, given in a time zone with this offset in seconds.
fn utc(time: NaiveDateTime, offset: i32) -> Result<DateTime<Utc>, &'static str> {
    let time = time
        .and_utc()
        .checked_sub_signed(TimeDelta::seconds(offset.into()));
    time.filter(has_four_digit_year)
        .ok_or("year is out of range")
}

fn has_four_digit_year(time: &DateTime<Utc>) -> bool {
    (1..=9999).contains(&time.year())
}

fn number(digits: Option<&[u8]>) -> Option<u32> {
    let digits = digits?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn parse_date(bytes: &[u8]) -> Result<NaiveDate, &'static str> {
    if bytes.len() < 10 {
        return Err(TOO_SHORT);
    }
    let year = number(bytes.get(..4)).ok_or("invalid character in year")?;
    if bytes.get(4) != Some(&b'-') {
        return Err("invalid date separator, expected `-`");
    }
    let month = number(bytes.get(5..7)).ok_or("invalid character in month")?;
    if bytes.get(7) != Some(&b'-') {
        return Err("invalid date separator, expected `-`");
    }
    let day = number(bytes.get(8..10)).ok_or("invalid character in day")?;
    if year == 0 {
        return Err("year 0 is out of range");
    }
    if !(1..=12).contains(&month) {
        return Err("month value is outside expected range of 1-12");
    }
    NaiveDate::from_ymd_opt(year as i32, month, day).ok_or("day value is outside expected range")
}

/// Reads `HH:MM`, `HH:MM:SS` or `HH:MM:SS.ffffff`. Returns the time and what follows it.
fn parse_time(bytes: &[u8]) -> Option<(NaiveTime, &[u8])> {
    let hour = number(bytes.get(..2))?;
    let minute = number(bytes.get(3..5)).filter(|_| bytes.get(2) == Some(&b':'))?;
    let mut rest = bytes.get(5..)?;
    let (mut second, mut micros) = (0, 0);
    if let Some(b':') = rest.first() {
        second = number(rest.get(1..3))?;
        rest = rest.get(3..)?;
        if let Some(b'.' | b',') = rest.first() {
            let fraction = rest.get(1..)?;
            let digits = fraction.iter().take_while(|b| b.is_ascii_digit()).count();
            if digits == 0 {
                return None;
            }
            // Digits beyond microseconds are cut off.
            let kept = number(fraction.get(..digits.min(6)))?;
            micros = kept * 10u32.pow(6 - digits.min(6) as u32);
            rest = fraction.get(digits..)?;
        }
    }
    let time = NaiveTime::from_hms_micro_opt(hour, minute, second, micros)?;
    Some((time, rest))
}

/// Reads `HH:MM` or `HHMM`. Returns seconds.
fn parse_offset(bytes: &[u8]) -> Option<i32> {
    let hours = number(bytes.get(..2))?;
    let minutes = match bytes.len() {
        5 if bytes.get(2) == Some(&b':') => number(bytes.get(3..))?,
        4 => number(bytes.get(2..))?,
        _ => return None,
    };
    (hours < 24 && minutes < 60).then_some((hours * 3600 + minutes * 60) as i32)
}

/// Reads a decimal number of seconds or milliseconds. `None` when the text is not a number.
fn parse_number(text: &str) -> Option<Result<DateTime<Utc>, &'static str>> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let is_number = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if whole.len() + fraction.len() == 0 || !is_number(whole) || !is_number(fraction) {
        return None;
    }
    let whole: i128 = match whole {
        "" => 0,
        // Beyond any year that can be written, and small enough for the arithmetic below.
        digits if digits.trim_start_matches('0').len() > 18 => i128::from(i64::MAX),
        digits => digits.parse().ok()?,
    };
    let millionths: i128 = format!("{fraction:0<6.6}").parse().ok()?;
    let micros = if whole > MILLISECONDS_FROM {
        whole * 1_000 + millionths / 1_000
    } else {
        whole * 1_000_000 + millionths
    };
    let micros = i64::try_from(if text.starts_with('-') {
        -micros
    } else {
        micros
    })
    .ok();
    let time = micros
        .and_then(DateTime::<Utc>::from_timestamp_micros)
        .filter(has_four_digit_year);
    Some(time.ok_or("dates before 1 and after 9999 are not supported as unix timestamps"))
}
