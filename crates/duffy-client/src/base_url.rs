//! The base URL of an API, and the URLs of its endpoints.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use ureq::http::Uri;

use crate::error::{ClientError, Result};

/// The characters to encode in a segment of a path: all but the unreserved ones of RFC 3986.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// An absolute HTTP or HTTPS URL without user name, query, fragment and trailing slash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BaseUrl {
    pub(crate) text: String,
    pub(crate) host: String,
    pub(crate) https: bool,
}

impl BaseUrl {
    /// Checks a URL.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let shown = without_user_info(text.trim());
        let refuse = |cause: &str| ClientError::Url {
            url: shown.clone(),
            cause: cause.to_owned(),
        };
        if shown.contains(['?', '#']) {
            return Err(refuse("it has a query or a fragment"));
        }
        if !shown.is_empty() && !shown.contains("://") {
            return Err(refuse("it does not begin with http:// or https://"));
        }
        let uri: Uri = shown.parse().map_err(|error| refuse(&format!("{error}")))?;
        let https = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(refuse("it is neither http:// nor https://")),
        };
        let host = uri.host().unwrap_or_default().to_owned();
        if host.is_empty() {
            return Err(refuse("it names no host"));
        }
        // The parser ignores a port beyond 65535.
        let has_port = uri.authority().is_some_and(|whole| whole.as_str() != host);
        if has_port && uri.port_u16().is_none_or(|port| port == 0) {
            return Err(refuse("its port is not a number from 1 to 65535"));
        }
        Ok(Self {
            text: shown.trim_end_matches('/').to_owned(),
            host,
            https,
        })
    }

    /// Returns the URL below the base with these segments.
    pub(crate) fn join(&self, segments: &[&str]) -> String {
        let mut url = self.text.clone();
        for segment in segments {
            url.push('/');
            // These segments would change the path.
            if matches!(*segment, "." | "..") {
                url.push_str(&segment.replace('.', "%2E"));
            } else {
                url.extend(utf8_percent_encode(segment, RESERVED));
            }
        }
        url
    }

    /// Returns the URL of the health check. It is beside the API, not below it.
    pub(crate) fn health(&self) -> String {
        let root = self.text.strip_suffix("/api/v1").unwrap_or(&self.text);
        format!("{root}/healthz")
    }
}

/// Drops `user:password@`. The credentials come from [`crate::Settings`], and messages contain the URL.
fn without_user_info(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else {
        return text.to_owned();
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(end);
    let host = authority.rsplit('@').next().unwrap_or(authority);
    format!("{scheme}://{host}{tail}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn with_and_without_trailing_slash() {
        for text in [
            "http://h:8080/api/v1",
            "http://h:8080/api/v1/",
            " http://h:8080/api/v1// ",
        ] {
            let base = BaseUrl::parse(text).unwrap();
            assert_eq!(
                base.join(&["sessions", "1"]),
                "http://h:8080/api/v1/sessions/1"
            );
        }
        for (text, health) in [
            ("http://h:8080/api/v1/", "http://h:8080/healthz"),
            ("http://h/duffy/api/v1", "http://h/duffy/healthz"),
            ("http://h", "http://h/healthz"),
        ] {
            assert_eq!(BaseUrl::parse(text).unwrap().health(), health);
        }
        let bare = BaseUrl::parse("https://[::1]").unwrap();
        assert_eq!(bare.join(&["pools"]), "https://[::1]/pools");
        assert_eq!((bare.host.as_str(), bare.https), ("[::1]", true));
    }

    #[test]
    fn segments_do_not_change_the_path() {
        let base = BaseUrl::parse("http://h").unwrap();
        assert_eq!(
            base.join(&["pools", "a/b?c#d e%é"]),
            "http://h/pools/a%2Fb%3Fc%23d%20e%25%C3%A9"
        );
        assert_eq!(base.join(&["pools", ".."]), "http://h/pools/%2E%2E");
        assert_eq!(
            base.join(&["pools", "centos-9.x_64~"]),
            "http://h/pools/centos-9.x_64~"
        );
    }

    #[test]
    fn errors_have_the_url_without_its_password() {
        for (text, cause) in [
            ("", "empty string"),
            ("duffy.example.org/api", "does not begin with"),
            ("ftp://h/", "neither http:// nor"),
            ("http://", ""),
            ("http://h:99999/", "port"),
            ("http://h:0/", "port"),
            ("http://h h/", "invalid"),
            ("http://h/?a=b", "query"),
            ("http://u:hunter2@h/?a=b", "query"),
        ] {
            let message = BaseUrl::parse(text).unwrap_err().to_string();
            assert!(message.contains(cause), "{text}: {message}");
            assert!(
                !message.contains("hunter2") && !message.contains('\n'),
                "{message}"
            );
        }
        let base = BaseUrl::parse("http://u:p@h:1/api").unwrap();
        assert_eq!(base.text, "http://h:1/api");
    }
}
