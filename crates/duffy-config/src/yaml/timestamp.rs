//! Dates and times, by PyYAML's rules for YAML 1.1.

use std::fmt::Write as _;
use std::sync::LazyLock;

use chrono::{FixedOffset, NaiveDate};
use fancy_regex::Regex;

/// Matches a plain scalar that is a date or time, as in PyYAML's `resolver.py`.
pub(super) const IMPLICIT: &str = r"[0-9]{4}-[0-9]{2}-[0-9]{2}|[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([Tt]|[ \t]+)[0-9]{1,2}:[0-9]{2}:[0-9]{2}(\.[0-9]*)?([ \t]*(Z|[-+][0-9]{1,2}(:[0-9]{2})?))?";

/// Matches any date or time, as in PyYAML's `constructor.py`.
static TIMESTAMP: LazyLock<Option<Regex>> = LazyLock::new(|| {
    let date = r"(?<year>[0-9]{4})-(?<month>[0-9]{1,2})-(?<day>[0-9]{1,2})";
    let time =
        r"(?<hour>[0-9]{1,2}):(?<minute>[0-9]{2}):(?<second>[0-9]{2})(\.(?<fraction>[0-9]*))?";
    let zone = r"(?<utc>Z)|(?<sign>[-+])(?<zone_hour>[0-9]{1,2})(:(?<zone_minute>[0-9]{2}))?";
    Regex::new(&format!(
        r"\A{date}(([Tt]|[ \t]+){time}([ \t]*({zone}))?)?\z"
    ))
    .ok()
});

/// Returns a date or time as Python's `str()` prints it; `None` if the text is not one.
pub(super) fn print(text: &str) -> Option<String> {
    let found = TIMESTAMP.as_ref()?.captures(text).ok()??;
    let part = |name| found.name(name).map(|part| part.as_str());
    let number = |name| part(name)?.parse::<u32>().ok();
    let year = i32::try_from(number("year")?).ok()?;
    let date = NaiveDate::from_ymd_opt(year, number("month")?, number("day")?)?;
    if year == 0 {
        return None;
    }
    let Some(hour) = number("hour") else {
        return Some(date.format("%Y-%m-%d").to_string());
    };
    let fraction = part("fraction").unwrap_or_default();
    let micros = format!("{fraction:0<6.6}").parse().ok()?;
    let moment = date.and_hms_micro_opt(hour, number("minute")?, number("second")?, micros)?;
    let mut printed = moment.format("%Y-%m-%d %H:%M:%S").to_string();
    if micros > 0 {
        let _ = write!(printed, ".{micros:06}");
    }
    if part("utc").is_some() {
        printed.push_str("+00:00");
    }
    if let Some(hours) = number("zone_hour") {
        let seconds = (hours * 3600 + number("zone_minute").unwrap_or(0) * 60).cast_signed();
        let seconds = if part("sign") == Some("-") {
            -seconds
        } else {
            seconds
        };
        printed.push_str(&FixedOffset::east_opt(seconds)?.to_string());
    }
    Some(printed)
}
