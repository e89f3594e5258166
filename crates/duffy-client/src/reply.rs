//! Replies of the server.

use duffy_api::ErrorReply;
use serde::de::DeserializeOwned;
use serde_json::Value;
use ureq::http::{HeaderName, Response, header};

use crate::error::{ClientError, Refusal, Result};

/// The id of the request in the server's log.
pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// A reply of success.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    pub(crate) url: String,
    pub(crate) status: u16,
    pub(crate) request_id: Option<String>,
    pub(crate) body: Value,
}

impl Reply {
    /// Returns the body. Its members have the server's order.
    pub fn json(&self) -> &Value {
        &self.body
    }

    /// Returns the body as one of `duffy_api`'s types. Ignores members that the type lacks.
    /// Fails with [`ClientError::Unexpected`] if a member of the type is missing or invalid.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T> {
        T::deserialize(&self.body).map_err(|error| ClientError::Unexpected {
            url: self.url.clone(),
            status: self.status,
            cause: error.to_string(),
        })
    }

    /// HTTP status, 200 to 299.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Returns the id of the request in the server's log.
    pub fn request_id(&self) -> Option<&str> {
        self.request_id.as_deref()
    }

    /// Reads a reply of success, or the error that a reply reports.
    pub(crate) fn read(url: String, response: &Response<Vec<u8>>) -> Result<Self> {
        let (status, headers) = (response.status().as_u16(), response.headers());
        if response.status().is_redirection() {
            let location = headers.get(header::LOCATION);
            return Err(ClientError::Redirected {
                url,
                status,
                location: location
                    .map_or_else(|| "nowhere".to_owned(), |to| beginning(to.as_bytes())),
            });
        }
        let Ok(body) = serde_json::from_slice(response.body()) else {
            return Err(ClientError::NotJson {
                url,
                status,
                start: beginning(response.body()),
            });
        };
        let id = headers.get(X_REQUEST_ID);
        let reply = Self {
            url,
            status,
            request_id: id.map(|id| String::from_utf8_lossy(id.as_bytes()).into_owned()),
            body,
        };
        if response.status().is_success() {
            return Ok(reply);
        }
        let detail = reply.parse::<ErrorReply>()?.detail;
        Err(ClientError::Refused(Box::new(Refusal {
            status,
            detail,
            body: reply.body,
            request_id: reply.request_id,
        })))
    }
}

/// The first words of a body, on one line, without characters that change a terminal.
fn beginning(body: &[u8]) -> String {
    const LONGEST: usize = 80;
    // A character has up to four bytes. The text is shortened to `LONGEST` characters below.
    let text = String::from_utf8_lossy(&body[..body.len().min(16 * LONGEST)]);
    let text = text.replace(|c: char| c.is_control() || c == '\u{fffd}', " ");
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if body.is_empty() {
        return "an empty body".to_owned();
    }
    if line.is_empty() {
        return "a body of no text".to_owned();
    }
    let mut start: String = line.chars().take(LONGEST).collect();
    if start.len() < line.len() {
        start.push('…');
    }
    start
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beginnings_are_short_and_harmless() {
        assert_eq!(beginning(b""), "an empty body");
        assert_eq!(beginning(b" \r\n\x00"), "a body of no text");
        assert_eq!(
            beginning(b"<html>\n  <h1>Bad\x1b[31m Gateway"),
            "<html> <h1>Bad [31m Gateway"
        );
        let long = "é".repeat(5000);
        assert_eq!(beginning(long.as_bytes()), format!("{}…", "é".repeat(80)));
        assert_eq!(beginning(&[0xff; 4000]), "a body of no text");
    }
}
