//! Durations and points of time: any text or number parses or is refused. Parsed values are within bounds and survive a round trip through
//! JSON.
#![no_main]

use chrono::TimeDelta;
use duffy_api::TenantCreate;
use duffy_api::duration::{display, from_seconds, parse_lifetime, parse_offset, to_seconds};
use duffy_config::yaml;
use duffy_server::http::validate::{Form, read_body};
use duffy_server::lifecycle::sessions::SessionChange;
use libfuzzer_sys::fuzz_target;
use serde_json::json;

/// Twice the longest duration of Python, in days.
const MAX_DAYS: i64 = 2 * 999_999_999;

fn check(delta: TimeDelta) {
    assert!(delta.num_days().abs() <= MAX_DAYS);
    assert!(!display(delta).is_empty());
    let seconds = to_seconds(delta);
    let Ok(again) = from_seconds(seconds) else {
        panic!("{seconds}");
    };
    // A float cannot represent all microseconds of long durations.
    let lost = (again - delta).num_microseconds().map(i64::abs);
    assert!(lost.is_some_and(|lost| lost as f64 <= seconds.abs() / 1e9 + 1.0));
}

fuzz_target!(|text: &str| {
    parse_lifetime(text).map(check).unwrap_or_default();
    parse_offset(text).map(check).unwrap_or_default();
    if let Ok(seconds) = text.parse::<f64>() {
        from_seconds(seconds).map(check).unwrap_or_default();
    }
    if let Some(bytes) = text.as_bytes().first_chunk() {
        from_seconds(f64::from_le_bytes(*bytes))
            .map(check)
            .unwrap_or_default();
    }
    // As a number, if the text is one, and as text.
    for time in [text.to_owned(), json!(text).to_string()] {
        let body = format!(
            r#"{{"expires_at": {time}, "session_lifetime": {time}, "session_lifetime_max": {time}}}"#
        );
        if let Ok(body) = read_body(None, body.as_bytes()) {
            let _ = SessionChange::from_body(&body);
            let _ = TenantCreate::from_body(&body);
        }
    }
    let _ = yaml::parse(text, "fuzz.yaml");
});
