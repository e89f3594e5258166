//! Lengths of time: `1w2d3h4m5s6ms`, plain seconds, and their form on the wire.

use std::fmt::Write;

use chrono::TimeDelta;

/// Why a text is not a length of time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// The text has another form.
    #[error("invalid timedelta format")]
    Format,
    /// The text has the right form, but the number is too large for microseconds.
    #[error("timedelta out of range")]
    Range,
}

/// Maximum length of time: the maximum in the original's language.
const MAX_DAYS: i64 = 999_999_999;

const UNITS: [(&str, i64); 6] = [
    ("w", 7 * 86_400_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// Parses a lifetime: `1w2d3h4m5s6ms` in this order, with at least one part, an optional `+`
/// before it, and optional blanks between the parts; or a whole number of seconds. Upper and
/// lower case are equal.
pub fn parse_lifetime(text: &str) -> Result<TimeDelta, DurationError> {
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        let seconds: i64 = text.parse().map_err(|_| DurationError::Range)?;
        return checked(seconds.checked_mul(1_000));
    }
    let text = text.trim().to_lowercase();
    parse_units(text.strip_prefix('+').unwrap_or(&text))
}

/// Parses an offset: as [`parse_lifetime`], but with a required `+` or `-`, and without plain
/// seconds. `-` makes the result negative.
pub fn parse_offset(text: &str) -> Result<TimeDelta, DurationError> {
    let text = text.trim().to_lowercase();
    if let Some(rest) = text.strip_prefix('+') {
        parse_units(rest)
    } else if let Some(rest) = text.strip_prefix('-') {
        parse_units(rest).map(|delta| -delta)
    } else {
        Err(DurationError::Format)
    }
}

/// Converts a number of seconds to a length of time, rounded to microseconds.
pub fn from_seconds(seconds: f64) -> Result<TimeDelta, DurationError> {
    if !seconds.is_finite() || seconds.abs() > MAX_DAYS as f64 * 86_400.0 {
        return Err(DurationError::Range);
    }
    let whole = seconds.trunc();
    let micros = ((seconds - whole) * 1e6).round_ties_even();
    TimeDelta::try_seconds(whole as i64)
        .and_then(|delta| delta.checked_add(&TimeDelta::microseconds(micros as i64)))
        .ok_or(DurationError::Range)
}

fn parse_units(text: &str) -> Result<TimeDelta, DurationError> {
    let mut rest = text.trim_end_matches([' ', '\t', '\n', '\r']);
    if rest.len() != text.len() || rest.is_empty() {
        // Blanks are allowed before a part, but not after the last one; and one part is required.
        return Err(DurationError::Format);
    }
    let mut units = UNITS.iter();
    let mut total: i64 = 0;
    while !rest.is_empty() {
        rest = rest.trim_start();
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 {
            return Err(DurationError::Format);
        }
        let (number, tail) = rest.split_at(digits);
        let letters = tail.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (name, tail) = tail.split_at(letters);
        let Some((_, millis)) = units.by_ref().find(|(unit, _)| *unit == name) else {
            return Err(DurationError::Format);
        };
        let part = number
            .parse::<i64>()
            .ok()
            .and_then(|n| n.checked_mul(*millis));
        total = part
            .and_then(|p| total.checked_add(p))
            .ok_or(DurationError::Range)?;
        rest = tail;
    }
    checked(Some(total))
}

fn checked(millis: Option<i64>) -> Result<TimeDelta, DurationError> {
    millis
        .and_then(TimeDelta::try_milliseconds)
        .filter(|delta| delta.num_days().abs() <= MAX_DAYS)
        .ok_or(DurationError::Range)
}

/// Converts a length of time to seconds, exact to the microsecond.
pub fn to_seconds(delta: TimeDelta) -> f64 {
    delta.num_seconds() as f64 + f64::from(delta.subsec_micros()) / 1e6
}

/// Formats a length of time as `6:00:00`, `1 day, 2:00:00` or `7 days, 0:00:00.006000`.
pub fn display(delta: TimeDelta) -> String {
    let micros = delta.num_microseconds().unwrap_or(i64::MAX);
    let days = micros.div_euclid(86_400_000_000);
    let rest = micros.rem_euclid(86_400_000_000);
    let (seconds, fraction) = (rest / 1_000_000, rest % 1_000_000);
    let mut text = match days {
        0 => String::new(),
        1 | -1 => format!("{days} day, "),
        _ => format!("{days} days, "),
    };
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    let _ = write!(text, "{hours}:{minutes:02}:{:02}", seconds % 60);
    if fraction != 0 {
        let _ = write!(text, ".{fraction:06}");
    }
    text
}

/// Seconds on the wire, always with a fraction (`21600.0`).
pub(crate) mod float {
    use chrono::TimeDelta;
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(crate) fn serialize<S: Serializer>(delta: &TimeDelta, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_f64(super::to_seconds(*delta))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<TimeDelta, D::Error> {
        super::from_seconds(f64::deserialize(d)?).map_err(de::Error::custom)
    }
}

/// `null`, or seconds on the wire: a whole number if there is no fraction.
pub(crate) mod optional {
    use chrono::TimeDelta;
    use serde::{Deserialize, Deserializer, Serializer, de};

    #[expect(clippy::ref_option, reason = "serde passes the field by reference")]
    pub(crate) fn serialize<S: Serializer>(
        delta: &Option<TimeDelta>,
        s: S,
    ) -> Result<S::Ok, S::Error> {
        match delta {
            None => s.serialize_none(),
            Some(delta) if delta.subsec_micros() == 0 => s.serialize_i64(delta.num_seconds()),
            Some(delta) => s.serialize_f64(super::to_seconds(*delta)),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        d: D,
    ) -> Result<Option<TimeDelta>, D::Error> {
        let delta = Option::<f64>::deserialize(d)?.map(super::from_seconds);
        delta.transpose().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn seconds(text: &str) -> Result<f64, DurationError> {
        parse_lifetime(text).map(to_seconds)
    }

    #[test]
    fn lifetimes() {
        assert_eq!(seconds("6h"), Ok(21_600.0));
        assert_eq!(seconds("1w2d3h4m5s6ms"), Ok(788_645.006));
        assert_eq!(seconds(" 1H 30M "), Ok(5_400.0));
        assert_eq!(seconds("+1h"), Ok(3_600.0));
        assert_eq!(seconds("86400"), Ok(86_400.0));
        assert_eq!(seconds("5ms"), Ok(0.005));
        for bad in [
            "", " ", "a while", "-1h", "1x", "1h1h", "1m1h", "1.5h", "h", "1h ago",
        ] {
            assert_eq!(seconds(bad), Err(DurationError::Format), "{bad:?}");
        }
        assert_eq!(seconds("99999999999999999999w"), Err(DurationError::Range));
        assert_eq!(seconds("9999999999999w"), Err(DurationError::Range));
    }

    #[test]
    fn offsets() {
        assert_eq!(parse_offset("+1h").map(to_seconds), Ok(3_600.0));
        assert_eq!(parse_offset(" -30M ").map(to_seconds), Ok(-1_800.0));
        assert_eq!(parse_offset("1h"), Err(DurationError::Format));
        assert_eq!(parse_offset("3600"), Err(DurationError::Format));
        assert_eq!(parse_offset("+"), Err(DurationError::Format));
    }

    #[test]
    fn shown_as_the_original_shows_them() {
        let show = |text| display(parse_lifetime(text).unwrap());
        assert_eq!(show("6h"), "6:00:00");
        assert_eq!(show("1d2h"), "1 day, 2:00:00");
        assert_eq!(show("1w6ms"), "7 days, 0:00:00.006000");
        assert_eq!(display(TimeDelta::hours(-1)), "-1 day, 23:00:00");
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in "\\PC*") {
            let _ = parse_lifetime(&text);
            let _ = parse_offset(&text);
        }

        #[test]
        fn units_add_up(d in 0i64..1000, h in 0i64..1000, s in 0i64..100_000) {
            let delta = parse_lifetime(&format!("{d}d{h}h{s}s")).unwrap();
            prop_assert_eq!(delta.num_seconds(), d * 86_400 + h * 3_600 + s);
        }
    }
}
