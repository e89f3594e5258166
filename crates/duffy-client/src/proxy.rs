//! The proxy that the environment names: `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY`.
//!
//! ureq's `Proxy::try_from_env` (3.5) differs from curl and Python: it prefers `ALL_PROXY`, uses `HTTP_PROXY` for https too,
//! ignores a URL that it cannot read, and uses the proxy for the machine itself. In `NO_PROXY`, `example.org` does not match
//! `a.example.org`, and blanks after commas are significant.

use ureq::Proxy;

use crate::base_url::BaseUrl;
use crate::error::{ClientError, Result};

/// Returns the proxy for this URL, if any.
pub(crate) fn from_env(base: &BaseUrl) -> Result<Option<Proxy>> {
    let Some((variable, value)) = pick(base, |name| std::env::var(name).ok()) else {
        return Ok(None);
    };
    // The value may contain a password, so the error does not have it.
    Proxy::new(&value)
        .map(Some)
        .map_err(|_| ClientError::Proxy { variable })
}

/// Returns the variable for this URL, and its value.
fn pick(base: &BaseUrl, lookup: impl Fn(&str) -> Option<String>) -> Option<(String, String)> {
    let value = |name: &str| {
        [name.to_lowercase(), name.to_owned()]
            .map(|name| lookup(&name).map(|value| (name, value)))
            .into_iter()
            .flatten()
            .find(|(_, value)| !value.trim().is_empty())
    };
    // A proxy on another machine would connect to itself.
    let name = base.host.trim_matches(['[', ']']);
    let address = name.parse::<std::net::IpAddr>();
    if name.eq_ignore_ascii_case("localhost") || address.is_ok_and(|ip| ip.is_loopback()) {
        return None;
    }
    if value("NO_PROXY").is_some_and(|(_, list)| is_excepted(&base.host, &list)) {
        return None;
    }
    let of_scheme = value(if base.https {
        "HTTPS_PROXY"
    } else {
        "HTTP_PROXY"
    });
    of_scheme.or_else(|| value("ALL_PROXY"))
}

/// Whether a list like `localhost, .example.org, 10.0.0.1` has the host: an entry matches itself and all names below it.
fn is_excepted(host: &str, list: &str) -> bool {
    let host = host.trim_matches(['[', ']']).to_lowercase();
    list.split(',').any(|entry| {
        let entry = entry.trim().to_lowercase();
        if entry == "*" {
            return true;
        }
        let entry = entry
            .trim_start_matches('*')
            .trim_start_matches('.')
            .trim_matches(['[', ']']);
        !entry.is_empty()
            && host
                .strip_suffix(entry)
                .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picked(url: &str, env: &[(&str, &str)]) -> Option<String> {
        let base = BaseUrl::parse(url).unwrap();
        pick(&base, |name| {
            let found = env.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        })
        .map(|(name, value)| format!("{name}={value}"))
    }

    #[test]
    fn the_scheme_selects_the_variable() {
        let env = [
            ("HTTP_PROXY", "http://a"),
            ("https_proxy", "http://b"),
            ("ALL_PROXY", "http://c"),
        ];
        assert_eq!(
            picked("http://h", &env).as_deref(),
            Some("HTTP_PROXY=http://a")
        );
        assert_eq!(
            picked("https://h", &env).as_deref(),
            Some("https_proxy=http://b")
        );
        assert_eq!(
            picked("http://h", &env[1..]).as_deref(),
            Some("ALL_PROXY=http://c")
        );
        assert_eq!(picked("http://h", &[("HTTP_PROXY", "")]), None);
        assert_eq!(picked("http://h", &[]), None);
    }

    #[test]
    fn exceptions() {
        for (host, list, excepted) in [
            ("localhost", "localhost", true),
            ("h.example.org", "a, example.org", true),
            ("h.example.org", ".example.org", true),
            ("h.example.org", "*.EXAMPLE.org", true),
            ("hexample.org", "example.org", false),
            ("[::1]", "::1", true),
            ("h", "", false),
            ("h", ",", false),
            ("h", "*", true),
        ] {
            assert_eq!(is_excepted(host, list), excepted, "{host} in {list:?}");
        }
        let env = [("NO_PROXY", "10.0.0.1"), ("HTTP_PROXY", "http://a")];
        assert_eq!(picked("http://10.0.0.1:8080/", &env), None);
        for own in ["http://127.1.2.3:80/", "http://[::1]/", "http://localhost/"] {
            assert_eq!(picked(own, &env[1..]), None, "{own}");
        }
    }
}
