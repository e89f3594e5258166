//! Parsers for the values of arguments.

use std::path::PathBuf;
use std::time::Duration;

use chrono::TimeDelta;
use clap::builder::{PathBufValueParser, TypedValueParser};
use duffy_api::{ApiKeyUpdate, NodeState, NodesSpec, duration};
use uuid::Uuid;

/// A value, or `None` for the configuration's default. Clap takes a plain `Option` for an optional argument.
pub type OrDefault<T> = Option<T>;

/// Parses `none` and `null` as the default, and everything else with `parse`.
fn or_default<T>(
    text: &str,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<OrDefault<T>, String> {
    if ["none", "null"].contains(&text.to_ascii_lowercase().as_str()) {
        return Ok(None);
    }
    parse(text).map(Some)
}

/// Parses a quota: `none`, `null` or a number that the database can hold.
pub fn parse_quota(text: &str) -> Result<OrDefault<i64>, String> {
    or_default(text, |text| match text.trim().parse::<i64>() {
        Ok(number) if (1..=i64::from(i32::MAX)).contains(&number) => Ok(number),
        _ => Err(format!("give a number from 1 to {}, or none", i32::MAX)),
    })
}

/// Parses a duration: `none`, `null`, `1w2d3h4m5s`, or a number of seconds.
pub fn parse_interval(text: &str) -> Result<OrDefault<TimeDelta>, String> {
    or_default(text, |text| {
        duration::parse_lifetime(text).map_err(|error| {
            format!("{error}: write 6h, 1d12h, 90m or a number of seconds, or none")
        })
    })
}

/// Parses a reason, which must not be empty.
pub fn parse_reason(text: &str) -> Result<String, String> {
    match text.trim() {
        "" => Err("give a reason: it is recorded in the history".to_owned()),
        reason => Ok(reason.to_owned()),
    }
}

/// Parses an age with a unit: a number alone could be meant as days.
pub fn parse_age(text: &str) -> Result<Duration, String> {
    const HINT: &str = "write 90d, 12w or 36h; at least 1h";
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(HINT.to_owned());
    }
    let age = duration::parse_lifetime(text).map_err(|error| format!("{error}: {HINT}"))?;
    let age = age.to_std().map_err(|_| HINT.to_owned())?;
    if age < Duration::from_hours(1) {
        return Err(HINT.to_owned());
    }
    Ok(age)
}

/// Parses the state of a node.
pub fn parse_state(text: &str) -> Result<NodeState, String> {
    text.parse().map_err(|_| {
        let states = NodeState::ALL.map(NodeState::as_str);
        format!("give one of {}", states.join(", "))
    })
}

/// Parses a new API key: `reset`, or a UUID in any spelling.
pub fn parse_api_key(text: &str) -> Result<ApiKeyUpdate, String> {
    if text == "reset" {
        return Ok(ApiKeyUpdate::Reset);
    }
    let bare = text.strip_prefix("urn:uuid:").unwrap_or(text);
    let bare = bare
        .strip_prefix('{')
        .and_then(|inner| inner.strip_suffix('}'))
        .unwrap_or(bare);
    let key = Uuid::try_parse(bare)
        .map_err(|_| "give `reset`, or a UUID, for example from uuidgen".to_owned())?;
    Ok(ApiKeyUpdate::Set(key.to_string()))
}

/// Parses `pool=NAME,quantity=NUMBER`, in either order.
pub fn parse_nodes_spec(text: &str) -> Result<NodesSpec, String> {
    const HINT: &str = "write pool=NAME,quantity=NUMBER";
    let (mut pool, mut quantity) = (None, None);
    for item in text.split(',') {
        let Some((key, value)) = item.split_once('=') else {
            return Err(format!("{item:?} is not KEY=VALUE: {HINT}"));
        };
        let slot = match key {
            "pool" => &mut pool,
            "quantity" => &mut quantity,
            _ => return Err(format!("unknown key `{key}`: {HINT}")),
        };
        if slot.replace(value).is_some() {
            return Err(format!(
                "`{key}` is given twice: use one argument for each pool"
            ));
        }
    }
    let (Some(pool), Some(quantity)) = (pool, quantity) else {
        return Err("both `pool` and `quantity` are required".to_owned());
    };
    if pool.is_empty() {
        return Err("the pool's name is missing".to_owned());
    }
    match quantity.trim().parse() {
        Ok(quantity) if quantity > 0 => Ok(NodesSpec {
            quantity,
            pool: pool.to_owned(),
        }),
        _ => Err("`quantity` must be a number, at least 1".to_owned()),
    }
}

/// Parses the number of a session.
pub fn parse_session_id(text: &str) -> Result<i64, String> {
    text.trim()
        .parse()
        .map_err(|_| "give the number of a session".to_owned())
}

/// Accepts a path that exists.
pub fn existing_path() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(|path| match path.try_exists() {
        Ok(true) => Ok(path),
        Ok(false) => Err("it does not exist".to_owned()),
        Err(error) => Err(error.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotas() {
        assert_eq!(parse_quota("5"), Ok(Some(5)));
        assert_eq!(parse_quota("None"), Ok(None));
        assert_eq!(parse_quota("NULL"), Ok(None));
        for bad in [
            "",
            "0",
            "-1",
            "many",
            "1.5",
            "2147483648",
            "99999999999999999999",
        ] {
            assert!(parse_quota(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn intervals() {
        assert_eq!(parse_interval("1d2h"), Ok(Some(TimeDelta::hours(26))));
        assert_eq!(parse_interval("90"), Ok(Some(TimeDelta::seconds(90))));
        assert_eq!(parse_interval("none"), Ok(None));
        let error = parse_interval("long").unwrap_err();
        assert!(error.contains("6h"), "{error}");
    }

    #[test]
    fn api_keys() {
        let key = "a8b9899d-b128-59a1-aa86-754920b7f5ed";
        for spelling in [
            key,
            &key.to_uppercase(),
            &key.replace('-', ""),
            &format!("{{{key}}}"),
            &format!("urn:uuid:{key}"),
        ] {
            assert_eq!(
                parse_api_key(spelling),
                Ok(ApiKeyUpdate::Set(key.to_owned())),
                "{spelling}"
            );
        }
        assert_eq!(parse_api_key("reset"), Ok(ApiKeyUpdate::Reset));
        for bad in [
            "",
            "hunter2",
            "RESET",
            &key[1..],
            "a8b9899db-128-59a1-aa86-754920b7f5ed",
            &"é".repeat(18),
        ] {
            assert!(parse_api_key(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn nodes_specs() {
        let spec = |text: &str| parse_nodes_spec(text).map(|spec| (spec.pool, spec.quantity));
        assert_eq!(spec("pool=a=b,quantity=2"), Ok(("a=b".to_owned(), 2)));
        assert_eq!(spec("quantity=1,pool=x"), Ok(("x".to_owned(), 1)));
        for (bad, why) in [
            ("", "not KEY=VALUE"),
            ("x", "not KEY=VALUE"),
            ("pool=x", "both"),
            ("quantity=1", "both"),
            ("pool=a,pool=b,quantity=1", "twice"),
            ("pool=a,quantity=1,size=2", "unknown key `size`"),
            ("pool=,quantity=1", "name is missing"),
            ("pool=a,quantity=0", "at least 1"),
            ("pool=a,quantity=-1", "at least 1"),
            ("pool=a,quantity=one", "at least 1"),
            ("pool=a,quantity=4294967296", "at least 1"),
            ("pool=a,quantity=1,", "not KEY=VALUE"),
        ] {
            let error = spec(bad).unwrap_err();
            assert!(error.contains(why), "{bad}: {error}");
        }
    }
}
