//! Sends HTTP requests to a server.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use ureq::http::Request;

/// A tenant's name and API key.
pub type Credentials<'a> = Option<(&'a str, &'a str)>;

/// The reply of a server.
#[derive(Debug)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// Names (in lower case) and values of the headers, in the order of the reply.
    pub headers: Vec<(String, String)>,
    /// The body as JSON; null if it is not JSON.
    pub json: Value,
    /// The body as text.
    pub text: String,
}

impl Reply {
    /// Returns the first header with this name (in lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }
}

/// Sends a request, with `json` as its body. Returns `Ok` for every status, and `Err` if there is no reply (connection refused or
/// broken, timeout of 60 s). Each request has its own connection.
pub fn http(
    method: &str,
    url: &str,
    credentials: Credentials<'_>,
    json: Option<&Value>,
) -> Result<Reply, String> {
    let mut headers = Vec::new();
    if let Some((name, key)) = credentials {
        let pair = STANDARD.encode(format!("{name}:{key}"));
        headers.push(("authorization".to_owned(), format!("Basic {pair}")));
    }
    if json.is_some() {
        headers.push(("content-type".to_owned(), "application/json".to_owned()));
    }
    let body = json.map(ToString::to_string);
    send(method, url, &headers, body.as_deref())
}

/// Like [`http`], with any headers and body.
pub fn send(
    method: &str,
    url: &str,
    headers: &[(String, String)],
    body: Option<&str>,
) -> Result<Reply, String> {
    let agent = ureq::Agent::new_with_config(
        ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_global(Some(Duration::from_mins(1)))
            .proxy(None)
            .allow_non_standard_methods(true)
            .build(),
    );
    let mut request = Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let reply = match body {
        Some(body) => agent.run(
            request
                .body(body.to_owned())
                .map_err(|error| error.to_string())?,
        ),
        None => agent.run(request.body(()).map_err(|error| error.to_string())?),
    };
    let mut reply = reply.map_err(|error| format!("{method} {url}: {error}"))?;
    let text = reply
        .body_mut()
        .read_to_string()
        .map_err(|error| error.to_string())?;
    Ok(Reply {
        status: reply.status().as_u16(),
        headers: reply
            .headers()
            .iter()
            .map(|(name, value)| {
                (
                    name.to_string(),
                    String::from_utf8_lossy(value.as_bytes()).into_owned(),
                )
            })
            .collect(),
        json: serde_json::from_str(&text).unwrap_or_default(),
        text,
    })
}
