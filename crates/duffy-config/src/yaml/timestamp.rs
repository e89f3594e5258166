//! Dates and times, by PyYAML's rules for YAML 1.1.

use std::fmt::Write as _;

use chrono::{FixedOffset, NaiveDate, TimeDelta};

/// Whether a plain text is a date or time.
pub(super) fn is_timestamp(text: &str) -> bool {
    // A short form is a date only with two digits each.
    read_timestamp(text).is_some_and(|stamp| stamp.time.is_some() || text.len() == 10)
}

struct Stamp<'a> {
    date: [&'a str; 3],
    time: Option<Time<'a>>,
}

struct Time<'a> {
    clock: [&'a str; 3],
    fraction: &'a str,
    zone: Option<Zone<'a>>,
}

enum Zone<'a> {
    Utc,
    Offset {
        negative: bool,
        hours: &'a str,
        minutes: &'a str,
    },
}

/// Digits from the front of the text, at least `min` and at most `max`.
fn take_digits<'a>(text: &mut &'a str, min: usize, max: usize) -> Option<&'a str> {
    let count = text
        .bytes()
        .take(max)
        .take_while(u8::is_ascii_digit)
        .count();
    if count < min {
        return None;
    }
    let (digits, rest) = text.split_at(count);
    *text = rest;
    Some(digits)
}

fn take_char(text: &mut &str, wanted: char) -> Option<()> {
    *text = text.strip_prefix(wanted)?;
    Some(())
}

fn read_timestamp(text: &str) -> Option<Stamp<'_>> {
    let mut rest = text;
    let year = take_digits(&mut rest, 4, 4)?;
    take_char(&mut rest, '-')?;
    let month = take_digits(&mut rest, 1, 2)?;
    take_char(&mut rest, '-')?;
    let day = take_digits(&mut rest, 1, 2)?;
    let date = [year, month, day];
    if rest.is_empty() {
        return Some(Stamp { date, time: None });
    }
    let blank = [' ', '\t'];
    rest = rest.strip_prefix(['T', 't']).or_else(|| {
        rest.strip_prefix(blank)
            .map(|rest| rest.trim_start_matches(blank))
    })?;
    let hour = take_digits(&mut rest, 1, 2)?;
    take_char(&mut rest, ':')?;
    let minute = take_digits(&mut rest, 2, 2)?;
    take_char(&mut rest, ':')?;
    let second = take_digits(&mut rest, 2, 2)?;
    let mut fraction = "";
    if take_char(&mut rest, '.').is_some() {
        fraction = take_digits(&mut rest, 0, usize::MAX)?;
    }
    let clock = [hour, minute, second];
    if rest.is_empty() {
        return Some(Stamp {
            date,
            time: Some(Time {
                clock,
                fraction,
                zone: None,
            }),
        });
    }
    rest = rest.trim_start_matches(blank);
    let zone = if rest == "Z" {
        Zone::Utc
    } else {
        let negative = rest.starts_with('-');
        rest = rest.strip_prefix(['-', '+'])?;
        let hours = take_digits(&mut rest, 1, 2)?;
        let mut minutes = "0";
        if take_char(&mut rest, ':').is_some() {
            minutes = take_digits(&mut rest, 2, 2)?;
        }
        if !rest.is_empty() {
            return None;
        }
        Zone::Offset {
            negative,
            hours,
            minutes,
        }
    };
    Some(Stamp {
        date,
        time: Some(Time {
            clock,
            fraction,
            zone: Some(zone),
        }),
    })
}

/// The date or time that a text writes, as Python's `str()` has it.
pub(super) fn construct(text: &str) -> Result<String, String> {
    let invalid = || "this looks like a date but is none; quote it if it is text".to_owned();
    let stamp = read_timestamp(text).ok_or_else(invalid)?;
    print_timestamp(&stamp).ok_or_else(invalid)
}

/// A date or time as Python's `str()` has it.
fn print_timestamp(stamp: &Stamp<'_>) -> Option<String> {
    let [year, month, day] = stamp.date;
    let date = NaiveDate::from_ymd_opt(year.parse().ok()?, month.parse().ok()?, day.parse().ok()?)?;
    if year == "0000" {
        return None;
    }
    let Some(time) = &stamp.time else {
        return Some(date.format("%Y-%m-%d").to_string());
    };
    let [hour, minute, second] = time.clock;
    let micros = format!("{:0<6.6}", time.fraction).parse().ok()?;
    let moment = date.and_hms_micro_opt(
        hour.parse().ok()?,
        minute.parse().ok()?,
        second.parse().ok()?,
        micros,
    )?;
    let mut printed = moment.format("%Y-%m-%d %H:%M:%S").to_string();
    if micros > 0 {
        let _ = write!(printed, ".{micros:06}");
    }
    match &time.zone {
        None => {}
        Some(Zone::Utc) => printed.push_str("+00:00"),
        Some(Zone::Offset {
            negative,
            hours,
            minutes,
        }) => {
            let offset =
                TimeDelta::hours(hours.parse().ok()?) + TimeDelta::minutes(minutes.parse().ok()?);
            let seconds = i32::try_from(offset.num_seconds()).ok()?;
            let offset = FixedOffset::east_opt(if *negative { -seconds } else { seconds })?;
            printed.push_str(&offset.to_string());
        }
    }
    Some(printed)
}
