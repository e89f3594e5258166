//! What the old API says.

use axum::Json;
use axum::http::header::ALLOW;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// What was not done, in the words that clients look for. The status is 200: so they expect it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failed {
    /// No nodes.
    Allocate,
    /// The session goes on.
    Return,
    /// The session ends when it did before.
    Extend,
    /// No list.
    Inventory,
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        say(match self {
            Self::Allocate => "Failed to allocate nodes",
            Self::Return => "Failed to return nodes on completion",
            Self::Extend => "Failed to change expiration time",
            Self::Inventory => "Failed to retrieve inventory of nodes",
        })
    }
}

/// The session is retired, or ends later.
pub fn done() -> Response {
    say("Done")
}

/// There is no `ssid`.
pub fn incomplete() -> Response {
    say("Some parameters are absent")
}

fn say(words: &'static str) -> Response {
    Json(words).into_response()
}

/// The web API does not take the key for this.
pub fn denied() -> Response {
    (
        StatusCode::FORBIDDEN,
        Json(json!({"msg": "Invalid duffy key"})),
    )
        .into_response()
}

/// A request that is refused here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// Without a key.
    NoKey,
    /// With a key of nobody's.
    UnknownKey,
    /// No such path.
    NotFound,
    /// Another method than GET.
    Method,
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let (status, words) = match self {
            Self::NoKey => (StatusCode::FORBIDDEN, "Not authenticated"),
            Self::UnknownKey => (StatusCode::FORBIDDEN, "Forbidden"),
            Self::NotFound => (StatusCode::NOT_FOUND, "Not Found"),
            Self::Method => (StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed"),
        };
        let mut reply = (status, Json(json!({"detail": words}))).into_response();
        if self == Self::Method {
            let headers = reply.headers_mut();
            headers.insert(ALLOW, HeaderValue::from_static("GET"));
        }
        reply
    }
}

/// `count` is no number.
pub fn no_number(input: &str) -> Response {
    let problem: Value = json!({
        "type": "int_parsing",
        "loc": ["query", "count"],
        "msg": "Input should be a valid integer, unable to parse string as an integer",
        "input": input,
    });
    let body = json!({ "detail": [problem] });
    (StatusCode::UNPROCESSABLE_ENTITY, Json(body)).into_response()
}
