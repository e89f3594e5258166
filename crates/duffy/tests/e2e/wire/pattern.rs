//! Compares replies with recorded ones, in which placeholders such as `<id>` and `<datetime>` stand for variable parts.

use serde_json::Value;

/// A placeholder and the values that it matches.
struct Placeholder {
    text: &'static str,
    stands_for: fn(&str) -> bool,
}

const PLACEHOLDERS: &[Placeholder] = &[
    Placeholder {
        text: "<id>",
        stands_for: |text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()),
    },
    Placeholder {
        text: "<datetime>",
        stands_for: is_datetime,
    },
    Placeholder {
        text: "<uuid>",
        stands_for: |text| {
            text.len() == 36
                && text.bytes().enumerate().all(|(at, byte)| match at {
                    8 | 13 | 18 | 23 => byte == b'-',
                    _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
                })
        },
    },
    Placeholder {
        text: "<node>",
        stands_for: |text| {
            text.strip_prefix("node")
                .and_then(|rest| rest.strip_suffix(".lab.test"))
                .is_some_and(|id| !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit()))
        },
    },
    Placeholder {
        text: "<ipaddr>",
        stands_for: |text| text.starts_with("127.1.") && text.parse::<std::net::Ipv4Addr>().is_ok(),
    },
    Placeholder {
        text: "<words>",
        stands_for: |text| !text.is_empty(),
    },
];

/// 2024-01-31, a T or a space, 12:34:56, an optional fraction, an optional Z or +00:00.
fn is_datetime(text: &str) -> bool {
    let fits = |text: &str, form: &str| {
        text.len() == form.len()
            && text
                .bytes()
                .zip(form.bytes())
                .all(|(byte, form)| match form {
                    b'0' => byte.is_ascii_digit(),
                    b'T' => byte == b'T' || byte == b' ',
                    form => byte == form,
                })
    };
    let text = text.strip_suffix('Z').unwrap_or(text);
    let text = text.strip_suffix("+00:00").unwrap_or(text);
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, "0"));
    fits(seconds, "0000-00-00T00:00:00")
        && (1..=6).contains(&fraction.len())
        && fraction.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether a text matches the recorded one.
pub fn fits_text(recorded: &str, text: &str) -> bool {
    let first = PLACEHOLDERS
        .iter()
        .filter_map(|placeholder| Some((recorded.find(placeholder.text)?, placeholder)))
        .min_by_key(|(at, _)| *at);
    let Some((at, placeholder)) = first else {
        return recorded == text;
    };
    let Some(text) = text.strip_prefix(&recorded[..at]) else {
        return false;
    };
    let rest = &recorded[at + placeholder.text.len()..];
    text.char_indices()
        .map(|(at, character)| at + character.len_utf8())
        .any(|end| (placeholder.stands_for)(&text[..end]) && fits_text(rest, &text[end..]))
}

/// Compares a value with the recorded one, without regard to the order of lists. Returns the first difference.
pub fn compare(recorded: &Value, value: &Value) -> Result<(), String> {
    match (recorded, value) {
        (Value::Object(recorded), Value::Object(value)) => {
            let keys = |map: &serde_json::Map<String, Value>| {
                let mut keys: Vec<_> = map.keys().cloned().collect();
                keys.sort();
                keys
            };
            if keys(recorded) != keys(value) {
                return Err(format!(
                    ": members {:?}, not {:?}",
                    keys(value),
                    keys(recorded)
                ));
            }
            recorded.iter().try_for_each(|(key, recorded)| {
                compare(recorded, &value[key]).map_err(|error| format!(".{key}{error}"))
            })
        }
        (Value::Array(recorded), Value::Array(values)) => compare_lists(recorded, values),
        (Value::String(placeholder), id) if placeholder == "<id>" => id
            .as_u64()
            .map(|_| ())
            .ok_or_else(|| format!(": {id} is no id")),
        // The recording has 21600 for 21600.0.
        (Value::Number(recorded), Value::Number(number))
            if recorded.as_f64() == number.as_f64() =>
        {
            Ok(())
        }
        (Value::String(recorded), Value::String(text)) if fits_text(recorded, text) => Ok(()),
        _ if recorded == value => Ok(()),
        _ => Err(format!(": {value}, not {recorded}")),
    }
}

/// Matches each recorded value with a different value.
fn compare_lists(recorded: &[Value], values: &[Value]) -> Result<(), String> {
    if recorded.len() != values.len() {
        return Err(format!(": {} items, not {}", values.len(), recorded.len()));
    }
    let fits: Vec<Vec<bool>> = recorded
        .iter()
        .map(|recorded| {
            let fits = |value| compare(recorded, value).is_ok();
            values.iter().map(fits).collect()
        })
        .collect();
    let mut taken_by = vec![None; values.len()];
    for at in 0..recorded.len() {
        if !assign(at, &fits, &mut taken_by, &mut vec![false; values.len()]) {
            let nearest = compare(&recorded[at], &values[at])
                .err()
                .unwrap_or_default();
            return Err(format!("[{at}]{nearest} (nor is it another item)"));
        }
    }
    Ok(())
}

/// One step of the matching: takes a free value, or one whose owner can take another.
fn assign(
    at: usize,
    fits: &[Vec<bool>],
    taken_by: &mut [Option<usize>],
    seen: &mut [bool],
) -> bool {
    for value in 0..taken_by.len() {
        if !fits[at][value] || std::mem::replace(&mut seen[value], true) {
            continue;
        }
        if taken_by[value].is_none_or(|owner| assign(owner, fits, taken_by, seen)) {
            taken_by[value] = Some(at);
            return true;
        }
    }
    false
}

#[test]
fn differences_are_found() {
    use serde_json::json;
    let recorded = json!({"id": "<id>", "at": "<datetime>Z", "n": [{"a": "<node>"}, {"a": "x"}]});
    let same = json!({"id": 7, "at": "2024-01-02T03:04:05.678Z", "n": [{"a": "x"}, {"a": "node1.lab.test"}]});
    assert_eq!(compare(&recorded, &same), Ok(()));
    for (pointer, other) in [
        ("/id", json!("7")),
        ("/id", json!(-1)),
        ("/at", json!("2024-01-02T03:04:05.678")),
        ("/at", json!("2024-01-02Z")),
        ("/n", json!([{"a": "x"}, {"a": "x"}])),
        ("/n", json!([{"a": "x"}])),
        ("/n/0", json!({"a": "x", "b": 1})),
        ("/n/1", json!({})),
    ] {
        let mut value = same.clone();
        *value.pointer_mut(pointer).unwrap() = other;
        assert!(compare(&recorded, &value).is_err(), "{value}");
    }
    let line = "OK: t: id=<id> at='<datetime>' key=<uuid>";
    assert!(fits_text(
        line,
        "OK: t: id=12 at='2024-01-02 03:04:05+00:00' key=11111111-2222-4333-8444-555555555555"
    ));
    assert!(!fits_text(
        line,
        "OK: t: id= at='2024-01-02 03:04:05+00:00' key=11111111-2222-4333-8444-555555555555"
    ));
    assert!(!fits_text("id=<id>", "id=12 "));
}
