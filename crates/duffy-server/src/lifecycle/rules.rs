//! Rules as pure functions.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, TimeZone, Utc};
use duffy_config::{Pool, ReuseValue};
use indexmap::IndexMap;
use serde_json::{Map, Value, json};

/// Members of a node's data that belong to one use of the node.
const EPHEMERAL: [&str; 4] = ["error", "nodes_spec", "provision", STALE_KEYS];

/// The member that says that a former tenant's key may still be on a reusable node.
pub const STALE_KEYS: &str = "stale_keys";

/// Returns how many nodes a pool lacks.
pub fn count_missing(fill_level: u32, filled: i64) -> u32 {
    let missing = i64::from(fill_level) - filled;
    u32::try_from(missing.max(0)).unwrap_or(u32::MAX)
}

/// Whether `requested` more are within a quota.
pub fn within_quota(requested: i64, current: i64, quota: i64) -> bool {
    requested.saturating_add(current) <= quota
}

/// Returns the pause after a failed attempt: `min`, doubled with each attempt, at most `max`, times 0.8 to 1.2 for a
/// `jitter` from 0 to 1.
pub fn back_off(attempt: u32, min: Duration, max: Duration, jitter: f64) -> Duration {
    let doubled = 2f64.powi(i32::try_from(attempt.saturating_sub(1)).unwrap_or(i32::MAX));
    let seconds = (min.as_secs_f64() * doubled).min(max.as_secs_f64());
    Duration::from_secs_f64(seconds * (0.8 + 0.4 * jitter.clamp(0.0, 1.0)))
}

/// A new time of expiry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewExpiry {
    /// At this time.
    At(DateTime<Utc>),
    /// Later by this time, or earlier if negative.
    By(TimeDelta),
}

/// Returns when a session expires: not before it was created, and at most `longest` after that, if there is such a
/// limit.
pub fn clamp_expiry(
    created_at: DateTime<Utc>,
    expires_at: Option<DateTime<Utc>>,
    new: NewExpiry,
    longest: Option<TimeDelta>,
) -> DateTime<Utc> {
    // The latest time that both databases and clients' languages support.
    let end_of_time = Utc
        .with_ymd_and_hms(9999, 12, 31, 23, 59, 59)
        .single()
        .unwrap_or(DateTime::<Utc>::MAX_UTC);
    let wanted = match new {
        NewExpiry::At(time) => time,
        NewExpiry::By(delta) => {
            let base = expires_at.unwrap_or(created_at);
            let fallback = if delta < TimeDelta::zero() {
                created_at
            } else {
                end_of_time
            };
            base.checked_add_signed(delta).unwrap_or(fallback)
        }
    };
    let latest = longest
        .and_then(|longest| created_at.checked_add_signed(longest))
        .unwrap_or(end_of_time)
        .min(end_of_time);
    wanted.min(latest).max(created_at)
}

/// Writes into a node's data why it failed, with the last lines of a playbook or of SSH, if there are any.
pub fn record_error(
    data: &mut Map<String, Value>,
    failed_at: DateTime<Utc>,
    detail: &str,
    log: Option<&str>,
) {
    // PostgreSQL's text cannot hold U+0000.
    let clean = |text: &str| text.replace('\0', "\u{fffd}");
    let mut error = json!({"failed_at": failed_at.to_rfc3339(), "detail": clean(detail)});
    if let Some(log) = log.filter(|log| !log.is_empty()) {
        error["log"] = json!(clean(log));
    }
    data.insert("error".into(), error);
}

/// Returns the members of a node's data that stay after its use.
pub fn without_ephemeral(data: &Map<String, Value>) -> Map<String, Value> {
    let mut kept = data.clone();
    kept.retain(|name, _| !EPHEMERAL.contains(&name.as_str()));
    kept
}

/// The members that the data of an unused node must have for a pool to pick it.
pub(crate) fn reuse_members(
    pool: &Pool,
    reuse: &IndexMap<String, ReuseValue>,
) -> Result<Map<String, Value>, String> {
    let member = |(name, value): (&String, &ReuseValue)| {
        let value = match value {
            ReuseValue::Number(number) => json!(number),
            ReuseValue::Template(template) => {
                let text = pool.render(template, &Map::new());
                Value::String(text.map_err(|error| error.to_string())?)
            }
        };
        Ok((name.clone(), value))
    };
    reuse.iter().map(member).collect()
}

/// Whether a node's data has all members that a pool requires. Compares as the database does: a number equals its digits.
pub fn matches_reuse(data: &Map<String, Value>, required: &Map<String, Value>) -> bool {
    required
        .iter()
        .all(|(name, required)| match (data.get(name), required) {
            (Some(Value::String(found)), Value::String(text)) => found == text,
            (Some(Value::Number(found)), Value::String(text)) => found.to_string() == *text,
            (Some(Value::Number(found)), Value::Number(number)) => {
                found.as_i64() == number.as_i64()
            }
            (Some(Value::String(found)), Value::Number(number)) => {
                found.parse().ok() == number.as_i64()
            }
            _ => false,
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn missing_nodes() {
        assert_eq!(count_missing(5, 3), 2);
        assert_eq!(count_missing(5, 5), 0);
        assert_eq!(count_missing(5, 9), 0);
    }

    #[test]
    fn expiry_is_clamped() {
        let created = Utc.with_ymd_and_hms(2026, 1, 1, 0, 0, 0).unwrap();
        let expires = Some(created + TimeDelta::hours(6));
        let longest = Some(TimeDelta::hours(12));
        let by = |hours| NewExpiry::By(TimeDelta::hours(hours));
        let hours =
            |new, longest| (clamp_expiry(created, expires, new, longest) - created).num_hours();
        assert_eq!(hours(by(1), longest), 7);
        assert_eq!(hours(by(-1), longest), 5);
        assert_eq!(hours(by(-9), longest), 0);
        assert_eq!(hours(by(100), longest), 12);
        assert_eq!(hours(by(100), None), 106);
        let long_ago = NewExpiry::At(created - TimeDelta::days(9));
        assert_eq!(hours(long_ago, longest), 0);
    }

    #[test]
    fn reuse_compares_as_the_database_does() {
        let data = json!({"architecture": "x86_64", "n": 1, "s": "7"});
        let data = data.as_object().unwrap();
        let fits = |required: Value| matches_reuse(data, required.as_object().unwrap());
        assert!(fits(json!({})));
        assert!(fits(json!({"architecture": "x86_64", "n": 1})));
        assert!(fits(json!({"n": "1", "s": 7})));
        for other in [
            json!({"architecture": "aarch64"}),
            json!({"missing": 1}),
            json!({"architecture": 1}),
            json!({"n": 2}),
            json!({"s": 8}),
            json!({"n": 1, "s": "8"}),
        ] {
            assert!(!fits(other));
        }
    }

    #[test]
    fn error_is_written_and_goes_with_the_use() {
        let mut data = json!({"architecture": "x86_64", "provision": {"ipaddr": "::1"}});
        let data = data.as_object_mut().unwrap();
        record_error(
            data,
            Utc.timestamp_opt(0, 0).unwrap(),
            "a\0b",
            Some("last words"),
        );
        assert_eq!(data["error"]["detail"], "a\u{fffd}b");
        assert_eq!(data["error"]["failed_at"], "1970-01-01T00:00:00+00:00");
        assert_eq!(data["error"]["log"], "last words");
        assert_eq!(
            Value::Object(without_ephemeral(data)),
            json!({"architecture": "x86_64"})
        );
    }

    proptest! {
        #[test]
        fn back_off_grows_and_is_bounded(attempt in 0u32..1000, jitter in 0f64..=1.0) {
            let (min, max) = (Duration::from_secs(5), Duration::from_mins(5));
            let pause = back_off(attempt, min, max, jitter);
            prop_assert!(pause >= Duration::from_secs(4) && pause <= Duration::from_mins(6));
            prop_assert!(back_off(attempt + 1, min, max, jitter) >= pause);
        }

        #[test]
        fn expiry_never_leaves_its_bounds(
            start in 0i64..4_000_000_000,
            at in -10_000_000_000i64..1_000_000_000_000,
            offset in i64::MIN / 1_000_000..i64::MAX / 1_000_000,
            longest in 0i64..100_000_000,
        ) {
            let created = Utc.timestamp_opt(start, 0).unwrap();
            let longest = TimeDelta::seconds(longest);
            for new in [
                NewExpiry::By(TimeDelta::milliseconds(offset)),
                NewExpiry::At(Utc.timestamp_opt(at, 0).single().unwrap_or(created)),
            ] {
                let expiry = clamp_expiry(created, Some(created), new, Some(longest));
                prop_assert!(expiry >= created && expiry <= created + longest);
            }
        }
    }
}
