//! Refuses requests that a page of another site makes a browser send, with the credentials that the browser remembers.

use axum::extract::Request;
use axum::http::header::{HOST, ORIGIN};
use axum::http::uri::Authority;
use axum::http::{HeaderName, HeaderValue, Method, Uri};

use super::error::ApiError;

/// Browsers say here how the page's site relates to this one. No page can set it.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Refuses a request that may change something and comes from a page of another site. Other clients than browsers send
/// neither of these headers.
pub fn check(request: &Request) -> Result<(), ApiError> {
    if [Method::GET, Method::HEAD, Method::OPTIONS].contains(request.method()) {
        return Ok(());
    }
    let headers = request.headers();
    let sites: Vec<_> = headers.get_all(SEC_FETCH_SITE).iter().collect();
    let mut origins = headers.get_all(ORIGIN).iter();
    if sites
        .iter()
        .any(|site| *site != "same-origin" && *site != "none")
    {
        return Err(refusal(
            "its Sec-Fetch-Site is neither same-origin nor none",
        ));
    }
    // A proxy may have changed Host. What the browser says is enough.
    if sites.first().is_some_and(|site| *site == "same-origin") {
        return Ok(());
    }
    let own = own_authority(request);
    if origins.any(|origin| !own.as_ref().is_some_and(|own| is_of(origin, own))) {
        return Err(refusal("its Origin is not the host that it was sent to"));
    }
    Ok(())
}

fn refusal(cause: &str) -> ApiError {
    ApiError::ForbiddenBecause(format!(
        "this request comes from a page of another site: {cause}"
    ))
}

/// The host that the request was sent to. In HTTP/2 it is part of the URI.
fn own_authority(request: &Request) -> Option<Authority> {
    let of_uri = request.uri().authority().cloned();
    of_uri.or_else(|| request.headers().get(HOST)?.to_str().ok()?.parse().ok())
}

/// Whether an origin is this host. A proxy may handle TLS, so both schemes can be ours. The scheme of the origin gives
/// the port where none is named.
fn is_of(origin: &HeaderValue, own: &Authority) -> bool {
    let origin = origin.to_str().ok();
    let Some(origin) = origin.and_then(|origin| origin.parse::<Uri>().ok()) else {
        return false;
    };
    let default_port = match origin.scheme_str() {
        Some("http") => 80,
        Some("https") => 443,
        _ => return false,
    };
    let port = |authority: &Authority| authority.port_u16().unwrap_or(default_port);
    origin
        .authority()
        .is_some_and(|of| of.host().eq_ignore_ascii_case(own.host()) && port(of) == port(own))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn is_refused(method: &str, uri: &str, headers: &[(&str, &str)]) -> bool {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        check(&request.body(Body::empty()).unwrap()).is_err()
    }

    #[test]
    fn only_unsafe_requests_of_other_sites_are_refused() {
        let foreign = [("host", "duffy"), ("origin", "https://evil.example")];
        let site = [("host", "duffy"), ("sec-fetch-site", "cross-site")];
        for method in ["GET", "HEAD", "OPTIONS"] {
            assert!(!is_refused(method, "/", &foreign), "{method}");
            assert!(!is_refused(method, "/", &site), "{method}");
        }
        for method in ["POST", "PUT", "DELETE", "PATCH", "ODD"] {
            assert!(is_refused(method, "/", &foreign), "{method}");
            assert!(is_refused(method, "/", &site), "{method}");
            assert!(!is_refused(method, "/", &[("host", "duffy")]), "{method}");
        }
    }

    #[test]
    fn a_browser_says_which_site_a_page_is_of() {
        for (site, refused) in [
            ("same-origin", false),
            ("none", false),
            ("same-site", true),
            ("cross-site", true),
            ("", true),
            ("Same-Origin", true),
        ] {
            let headers = [("host", "duffy"), ("sec-fetch-site", site)];
            assert_eq!(is_refused("POST", "/", &headers), refused, "{site}");
        }
        let twice = [
            ("host", "duffy"),
            ("sec-fetch-site", "none"),
            ("sec-fetch-site", "cross-site"),
        ];
        assert!(is_refused("POST", "/", &twice));
    }

    #[test]
    fn an_origin_is_ours_when_host_and_port_are() {
        for (host, origin, ours) in [
            ("duffy.example", "http://duffy.example", true),
            ("duffy.example", "https://duffy.example", true),
            ("Duffy.Example", "https://duffy.example", true),
            ("duffy.example:443", "https://duffy.example", true),
            ("duffy.example:80", "http://duffy.example", true),
            ("duffy.example", "http://duffy.example:80", true),
            ("duffy.example:8080", "http://duffy.example:8080", true),
            ("[::1]:8080", "http://[::1]:8080", true),
            ("duffy.example:80", "https://duffy.example", false),
            ("duffy.example:443", "http://duffy.example", false),
            ("duffy.example:8080", "http://duffy.example", false),
            ("duffy.example", "http://duffy.example:8080", false),
            ("duffy.example", "http://evil.example", false),
            ("duffy.example", "http://duffy.example.evil", false),
            ("duffy.example", "ftp://duffy.example", false),
            ("duffy.example", "duffy.example", false),
            ("duffy.example", "null", false),
            ("duffy.example", "", false),
            ("null", "null", false),
        ] {
            let headers = [("host", host), ("origin", origin)];
            assert_eq!(is_refused("PUT", "/", &headers), !ours, "{host} {origin}");
        }
        // HTTP/2 names the host in the URI.
        let origin = [("origin", "https://duffy.example")];
        assert!(!is_refused("POST", "https://duffy.example/x", &origin));
        assert!(is_refused("POST", "https://duffy.example:444/x", &origin));
        // Nobody knows which host is ours.
        assert!(is_refused("POST", "/", &origin));
    }
}
