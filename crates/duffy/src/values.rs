//! Values of arguments that are more than a text or a number.

use std::path::PathBuf;
use std::time::Duration;

use chrono::TimeDelta;
use clap::builder::{PathBufValueParser, TypedValueParser};
use duffy_api::{ApiKeyUpdate, NodeState, NodesSpec, duration};
use uuid::Uuid;

/// A value, or `none`/`null` for the configuration's default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OrDefault<T> {
    /// `none` or `null`.
    Default,
    /// A value of one's own.
    Own(T),
}

impl<T> OrDefault<T> {
    /// `None` for the default.
    #[cfg(feature = "server")]
    pub fn into_option(self) -> Option<T> {
        match self {
            OrDefault::Default => None,
            OrDefault::Own(value) => Some(value),
        }
    }

    fn parse(
        text: &str,
        own: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<OrDefault<T>, String> {
        if ["none", "null"]
            .iter()
            .any(|word| text.eq_ignore_ascii_case(word))
        {
            return Ok(OrDefault::Default);
        }
        own(text).map(OrDefault::Own)
    }
}

/// A quota: `none`, `null` or a number that the database can hold.
pub fn parse_quota(text: &str) -> Result<OrDefault<i64>, String> {
    OrDefault::parse(text, |text| match text.trim().parse::<i64>() {
        Ok(number) if (1..=i64::from(i32::MAX)).contains(&number) => Ok(number),
        _ => Err(format!("give a number from 1 to {}, or none", i32::MAX)),
    })
}

/// A length of time: `none`, `null`, `1w2d3h4m5s`, or a number of seconds.
pub fn parse_interval(text: &str) -> Result<OrDefault<TimeDelta>, String> {
    OrDefault::parse(text, |text| {
        duration::parse_lifetime(text).map_err(|error| {
            format!("{error}: write 6h, 1d12h, 90m or a number of seconds, or none")
        })
    })
}

/// Why something is done: for the history, so it has to say something.
pub fn parse_reason(text: &str) -> Result<String, String> {
    match text.trim() {
        "" => Err("say why: it goes into the history".to_owned()),
        reason => Ok(reason.to_owned()),
    }
}

/// An age of history, with a unit: a number alone could be meant as days.
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

/// A state of a node.
pub fn parse_state(text: &str) -> Result<NodeState, String> {
    text.parse().map_err(|_| {
        let states = NodeState::ALL.map(NodeState::as_str);
        format!("give one of {}", states.join(", "))
    })
}

/// A new API key: `reset`, or a UUID in any of its spellings.
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
        .map_err(|_| "give `reset`, or a UUID such as the program uuidgen makes".to_owned())?;
    Ok(ApiKeyUpdate::Set(key.to_string()))
}

/// What of a pool is wanted: `pool=NAME,quantity=NUMBER`, in either order.
pub fn parse_nodes_spec(text: &str) -> Result<NodesSpec, String> {
    let (mut pool, mut quantity) = (None, None);
    for item in text.split(',') {
        let Some((key, value)) = item.split_once('=') else {
            return Err(format!(
                "{item:?} is not KEY=VALUE: write pool=NAME,quantity=NUMBER"
            ));
        };
        let slot = match key {
            "pool" => &mut pool,
            "quantity" => &mut quantity,
            _ => {
                return Err(format!(
                    "unknown key `{key}`: write pool=NAME,quantity=NUMBER"
                ));
            }
        };
        if slot.replace(value).is_some() {
            return Err(format!(
                "`{key}` is there twice: name another pool in another argument"
            ));
        }
    }
    let (Some(pool), Some(quantity)) = (pool, quantity) else {
        return Err("both `pool` and `quantity` must be there".to_owned());
    };
    if pool.is_empty() {
        return Err("the pool's name is missing".to_owned());
    }
    match quantity.trim().parse::<u32>() {
        Ok(quantity) if quantity > 0 => Ok(NodesSpec {
            quantity,
            pool: pool.to_owned(),
        }),
        _ => Err("`quantity` must be a number, at least 1".to_owned()),
    }
}

/// The number of a session.
pub fn parse_session_id(text: &str) -> Result<i64, String> {
    text.trim()
        .parse()
        .map_err(|_| "give the number of a session".to_owned())
}

/// A path at which there is something.
pub fn existing_path() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(|path| {
        path.try_exists()
            .map_err(|error| error.to_string())
            .and_then(|there| {
                there
                    .then_some(path)
                    .ok_or_else(|| "it does not exist".to_owned())
            })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotas() {
        assert_eq!(parse_quota("5"), Ok(OrDefault::Own(5)));
        assert_eq!(parse_quota("None"), Ok(OrDefault::Default));
        assert_eq!(parse_quota("NULL"), Ok(OrDefault::Default));
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
        assert_eq!(
            parse_interval("1d2h"),
            Ok(OrDefault::Own(TimeDelta::hours(26)))
        );
        assert_eq!(
            parse_interval("90"),
            Ok(OrDefault::Own(TimeDelta::seconds(90)))
        );
        assert_eq!(parse_interval("none"), Ok(OrDefault::Default));
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
