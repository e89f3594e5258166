//! What the server answered.

use duffy_api::ErrorReply;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{ClientError, Refusal};

/// A reply that says the request was done.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    pub(crate) url: String,
    pub(crate) status: u16,
    pub(crate) request_id: Option<String>,
    pub(crate) body: Value,
}

impl Reply {
    /// The body as the server sent it, members in its order.
    pub fn json(&self) -> &Value {
        &self.body
    }

    /// The body as one of `duffy_api`'s types; members that the type lacks are ignored.
    /// Fails with [`ClientError::Unexpected`] when a member that it needs is missing or odd.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, ClientError> {
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

    /// The id by which the server's log knows the request.
    pub fn request_id(&self) -> Option<&str> {
        self.request_id.as_deref()
    }

    /// Sorts what came over the wire into replies and errors.
    pub(crate) fn read(
        url: String,
        status: u16,
        request_id: Option<String>,
        location: Option<String>,
        body: &[u8],
    ) -> Result<Self, ClientError> {
        if (300..400).contains(&status) {
            return Err(ClientError::Redirected {
                url,
                status,
                location: location
                    .map_or_else(|| "nowhere".to_owned(), |to| beginning(to.as_bytes())),
            });
        }
        let Ok(body) = serde_json::from_slice::<Value>(body) else {
            return Err(ClientError::NotJson {
                url,
                status,
                start: beginning(body),
            });
        };
        if (200..300).contains(&status) {
            return Ok(Self {
                url,
                status,
                request_id,
                body,
            });
        }
        match serde_json::from_value::<ErrorReply>(body.clone()) {
            Ok(reply) => Err(ClientError::Refused(Box::new(Refusal {
                status,
                detail: reply.detail,
                body,
                request_id,
            }))),
            Err(error) => Err(ClientError::Unexpected {
                url,
                status,
                cause: error.to_string(),
            }),
        }
    }
}

/// The first words of a body, on one line, fit to be shown on a terminal.
fn beginning(body: &[u8]) -> String {
    const LONGEST: usize = 80;
    // A character is up to four bytes; what follows cannot be shown anyway.
    let text = String::from_utf8_lossy(&body[..body.len().min(16 * LONGEST)]);
    let text = text.replace(|c: char| c.is_control() || c == '\u{fffd}', " ");
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.is_empty() {
        return if body.is_empty() {
            "an empty body".to_owned()
        } else {
            "a body of no text".to_owned()
        };
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
