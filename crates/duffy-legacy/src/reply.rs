//! Replies of the old API that refuse a request or report its failure.

use axum::Json;
use axum::http::header::ALLOW;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// Why a request is not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LegacyError {
    /// There are no nodes.
    Allocate,
    /// The session is not retired.
    Return,
    /// The session does not last longer.
    Extend,
    /// There is no list.
    Inventory,
    /// The parameter `ssid` is missing.
    NoSession,
    /// The web API does not accept the key for this.
    Denied,
    /// The request has no key.
    NoKey,
    /// The key is not in `usermap`.
    UnknownKey,
    /// The parameter `count` has this value, which is not a number.
    NotANumber(String),
    /// The path is unknown.
    NotFound,
    /// The method is not GET.
    Method,
    /// The web API is not healthy.
    Unhealthy,
}

impl IntoResponse for LegacyError {
    /// Clients of the old API expect failures as texts with the status 200.
    fn into_response(self) -> Response {
        let detail = |text: &str| json!({ "detail": text });
        let (status, body) = match &self {
            Self::Allocate => (StatusCode::OK, json!("Failed to allocate nodes")),
            Self::Return => (
                StatusCode::OK,
                json!("Failed to return nodes on completion"),
            ),
            Self::Extend => (StatusCode::OK, json!("Failed to change expiration time")),
            Self::Inventory => (
                StatusCode::OK,
                json!("Failed to retrieve inventory of nodes"),
            ),
            Self::NoSession => (StatusCode::OK, json!("Some parameters are absent")),
            Self::Denied => (StatusCode::FORBIDDEN, json!({"msg": "Invalid duffy key"})),
            Self::NoKey => (StatusCode::FORBIDDEN, detail("Not authenticated")),
            Self::UnknownKey => (StatusCode::FORBIDDEN, detail("Forbidden")),
            Self::NotANumber(input) => {
                let message =
                    "Input should be a valid integer, unable to parse string as an integer";
                let loc = ["query", "count"];
                let error =
                    json!({"type": "int_parsing", "loc": loc, "msg": message, "input": input});
                (
                    StatusCode::UNPROCESSABLE_ENTITY,
                    json!({ "detail": [error] }),
                )
            }
            Self::NotFound => (StatusCode::NOT_FOUND, detail("Not Found")),
            Self::Method => (StatusCode::METHOD_NOT_ALLOWED, detail("Method Not Allowed")),
            Self::Unhealthy => (
                StatusCode::SERVICE_UNAVAILABLE,
                json!({"status": "failed", "detail": "The web API does not answer"}),
            ),
        };
        let mut reply = (status, Json(body)).into_response();
        if self == Self::Method {
            let headers = reply.headers_mut();
            headers.insert(ALLOW, HeaderValue::from_static("GET"));
        }
        reply
    }
}
