//! Makes every reply that is an error.
//!
//! A reply says what the client can change. Causes within the server go to the log, under the
//! request's id.

use std::error::Error;
use std::time::Duration;

use axum::Json;
use axum::http::header::{ALLOW, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use duffy_api::{Detail, ErrorReply, FieldError};

use super::validate::Errors;
use crate::credentials::CredentialsError;
use crate::db::DbError;
use crate::lifecycle::nodes::NodeError;
use crate::lifecycle::request::error::SessionError;
use crate::lifecycle::tenants::TenantError;

/// Asks the client for credentials.
const CHALLENGE: HeaderValue = HeaderValue::from_static("Basic realm=\"duffy\"");

/// When to retry after a fault that passes by itself.
const SOON: Duration = Duration::from_secs(1);

/// Why a request is not granted. The text is the reply's `detail`.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ApiError {
    /// 400: the body cannot be decoded.
    #[error("There was an error parsing the body")]
    UnreadableBody,
    /// 401: no credentials were given.
    #[error("Not authenticated")]
    NotAuthenticated,
    /// 401: the header with the credentials is malformed.
    #[error("Invalid authentication credentials")]
    InvalidCredentials,
    /// 401: the credentials are wrong.
    #[error("Unauthorized")]
    Unauthorized,
    /// 403: not for this tenant.
    #[error("Forbidden")]
    Forbidden,
    /// 403: not for this tenant, and why.
    #[error("{0}")]
    ForbiddenBecause(String),
    /// 404: there is no such thing.
    #[error("Not Found")]
    NotFound,
    /// 405: not with this method, but with those that the header `Allow` names.
    #[error("Method Not Allowed")]
    MethodNotAllowed(HeaderValue),
    /// 408: the body was not received in time.
    #[error("The body was not received in time")]
    BodyTimeout,
    /// 409: the name or address is taken.
    #[error("{0}")]
    Conflict(String),
    /// 413: the body is too large.
    #[error("The body is larger than 1 MiB")]
    BodyTooLarge,
    /// 422: fields are invalid.
    #[error("{}", Detail::Fields(.0.clone()))]
    Invalid(Vec<FieldError>),
    /// 422: the request cannot be fulfilled.
    #[error("{0}")]
    Unprocessable(String),
    /// 429: too many wrong keys, and how long to wait.
    #[error("Too many failed authentications: wait as long as Retry-After says")]
    TooManyFailures(Duration),
    /// 500: a fault of the server. The cause is in the log.
    #[error("Internal Server Error")]
    Internal,
    /// 503: temporarily unavailable: why, and when to retry.
    #[error("{0}")]
    Unavailable(&'static str, Duration),
}

impl ApiError {
    /// 500, with the cause in the log.
    pub fn internal(cause: &(dyn Error + 'static)) -> Self {
        tracing::error!(error = cause, "the request failed");
        ApiError::Internal
    }

    fn status(&self) -> StatusCode {
        match self {
            ApiError::UnreadableBody => StatusCode::BAD_REQUEST,
            ApiError::NotAuthenticated | ApiError::InvalidCredentials | ApiError::Unauthorized => {
                StatusCode::UNAUTHORIZED
            }
            ApiError::Forbidden | ApiError::ForbiddenBecause(_) => StatusCode::FORBIDDEN,
            ApiError::NotFound => StatusCode::NOT_FOUND,
            ApiError::MethodNotAllowed(_) => StatusCode::METHOD_NOT_ALLOWED,
            ApiError::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            ApiError::Conflict(_) => StatusCode::CONFLICT,
            ApiError::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            ApiError::Invalid(_) | ApiError::Unprocessable(_) => StatusCode::UNPROCESSABLE_ENTITY,
            ApiError::TooManyFailures(_) => StatusCode::TOO_MANY_REQUESTS,
            ApiError::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            ApiError::Unavailable(..) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The header that belongs to the status. The original sends no challenge with
    /// [`ApiError::Unauthorized`], and clients compare.
    fn header(&self) -> Option<(HeaderName, HeaderValue)> {
        match self {
            ApiError::NotAuthenticated | ApiError::InvalidCredentials => {
                Some((WWW_AUTHENTICATE, CHALLENGE))
            }
            ApiError::MethodNotAllowed(allow) => Some((ALLOW, allow.clone())),
            ApiError::TooManyFailures(wait) | ApiError::Unavailable(_, wait) => {
                let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
                Some((RETRY_AFTER, HeaderValue::from(seconds)))
            }
            _ => None,
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, header) = (self.status(), self.header());
        let detail = match self {
            ApiError::Invalid(fields) => Detail::Fields(fields),
            other => Detail::Text(other.to_string()),
        };
        let body = Json(ErrorReply { detail });
        (status, HeaderMap::from_iter(header), body).into_response()
    }
}

impl From<Errors> for ApiError {
    fn from(errors: Errors) -> Self {
        ApiError::Invalid(errors.into_fields())
    }
}

impl From<DbError> for ApiError {
    fn from(error: DbError) -> Self {
        match error {
            DbError::Unavailable(_) | DbError::Conflict(_) => {
                tracing::error!(error = &error as &dyn Error, "database unavailable");
                ApiError::Unavailable("The database is not available", SOON)
            }
            other => ApiError::internal(&other),
        }
    }
}

impl From<CredentialsError> for ApiError {
    fn from(error: CredentialsError) -> Self {
        match error {
            CredentialsError::Busy => {
                ApiError::Unavailable("Too many API keys are being checked", SOON)
            }
            CredentialsError::UnfitKey
            | CredentialsError::Bcrypt(_)
            | CredentialsError::ThreadLost => ApiError::internal(&error),
        }
    }
}

impl From<SessionError> for ApiError {
    fn from(error: SessionError) -> Self {
        match error {
            SessionError::NotFound => ApiError::NotFound,
            SessionError::Forbidden => ApiError::Forbidden,
            SessionError::OtherTenant
            | SessionError::QuotaExceeded { .. }
            | SessionError::TooManySessions { .. } => ApiError::ForbiddenBecause(error.to_string()),
            SessionError::UnknownTenant(_)
            | SessionError::InactiveTenant(_)
            | SessionError::Retired(_) => ApiError::Unprocessable(error.to_string()),
            SessionError::CannotReserve { quantity, pool } => ApiError::Unprocessable(format!(
                "can't reserve nodes: quantity={quantity} pool={}",
                duffy_config::python::text_repr(&pool)
            )),
            SessionError::ContextualizingFailed => {
                tracing::error!(error = &error as &dyn Error, "session not granted");
                ApiError::Unavailable("contextualization of nodes failed", Duration::ZERO)
            }
            SessionError::LeaseLost(_) => {
                tracing::warn!(error = &error as &dyn Error, "session not granted");
                ApiError::Unavailable(
                    "The session was ended before its nodes were ready",
                    Duration::ZERO,
                )
            }
            SessionError::OtherRequest => ApiError::Unprocessable(
                "this Idempotency-Key came with another request before: choose another key".into(),
            ),
            SessionError::FirstStillRuns => ApiError::Unavailable(
                "The first request with this Idempotency-Key is still running",
                SOON,
            ),
            SessionError::Stopping => ApiError::Unavailable("The server is stopping", SOON),
            SessionError::Db(error) => error.into(),
        }
    }
}

impl From<TenantError> for ApiError {
    fn from(error: TenantError) -> Self {
        match error {
            TenantError::NotFound => ApiError::NotFound,
            TenantError::Retired { .. } => ApiError::Unprocessable(error.to_string()),
            TenantError::NameTaken(name) => ApiError::Conflict(format!(
                "name {name:?} is taken: tenants' names are unique, retired ones included"
            )),
            TenantError::Credentials(error) => error.into(),
            TenantError::Db(error) => error.into(),
        }
    }
}

impl From<NodeError> for ApiError {
    fn from(error: NodeError) -> Self {
        match error {
            NodeError::HostnameTaken(hostname) => ApiError::Conflict(format!(
                "hostname {hostname:?} is taken: it has to be unique among active nodes"
            )),
            NodeError::AddressTaken(ipaddr) => ApiError::Conflict(format!(
                "ipaddr {ipaddr:?} is taken: it has to be unique among active nodes"
            )),
            NodeError::Db(error) => error.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(reply: &Response, name: axum::http::HeaderName) -> Option<&str> {
        reply
            .headers()
            .get(name)
            .map(|value| value.to_str().unwrap())
    }

    async fn body(reply: Response) -> serde_json::Value {
        let bytes = axum::body::to_bytes(reply.into_body(), 10_000)
            .await
            .unwrap();
        serde_json::from_slice(&bytes).unwrap()
    }

    #[tokio::test]
    async fn waits_are_rounded_up_and_challenges_sent() {
        let reply = ApiError::TooManyFailures(Duration::from_millis(1200)).into_response();
        assert_eq!(reply.status(), 429);
        assert_eq!(header(&reply, RETRY_AFTER), Some("2"));
        let reply = ApiError::NotAuthenticated.into_response();
        assert_eq!(
            header(&reply, WWW_AUTHENTICATE),
            Some("Basic realm=\"duffy\"")
        );
        assert_eq!(
            body(reply).await,
            serde_json::json!({"detail": "Not authenticated"})
        );
        let reply = ApiError::Unauthorized.into_response();
        assert_eq!(header(&reply, WWW_AUTHENTICATE), None);
    }

    #[tokio::test]
    async fn the_database_is_never_quoted() {
        let cause = sqlx::Error::Configuration("postgresql://secret@host".into());
        let reply = ApiError::from(DbError::Unavailable(cause)).into_response();
        assert_eq!(reply.status(), 503);
        assert_eq!(header(&reply, RETRY_AFTER), Some("1"));
        assert_eq!(
            body(reply).await,
            serde_json::json!({"detail": "The database is not available"})
        );
        let reply = ApiError::from(DbError::Corrupt("secret".into())).into_response();
        assert_eq!(reply.status(), 500);
        assert_eq!(
            body(reply).await,
            serde_json::json!({"detail": "Internal Server Error"})
        );
    }

    #[tokio::test]
    async fn refusals_are_worded_as_the_original_words_them() {
        for (error, status, detail) in [
            (
                SessionError::CannotReserve {
                    quantity: 1,
                    pool: "nope".into(),
                },
                422,
                "can't reserve nodes: quantity=1 pool='nope'",
            ),
            (
                SessionError::CannotReserve {
                    quantity: 1,
                    pool: "it's\n\u{1}".into(),
                },
                422,
                r#"can't reserve nodes: quantity=1 pool="it's\n\x01""#,
            ),
            (
                SessionError::QuotaExceeded {
                    requested: 3,
                    current: 2,
                    quota: 3,
                },
                403,
                "quota exceeded: requested nodes (3) + current allocation (2) = 5 > 3",
            ),
            (
                SessionError::InactiveTenant("x".into()),
                422,
                "tenant 'x' isn't active",
            ),
        ] {
            let reply = ApiError::from(error).into_response();
            assert_eq!(reply.status(), status);
            assert_eq!(body(reply).await, serde_json::json!({"detail": detail}));
        }
    }

    #[tokio::test]
    async fn conflicts_name_field_and_value() {
        let error = NodeError::AddressTaken("192.0.2.1".into());
        let reply = ApiError::from(error).into_response();
        assert_eq!(reply.status(), 409);
        let detail = body(reply).await.to_string();
        for part in ["ipaddr", "192.0.2.1", "unique"] {
            assert!(detail.contains(part), "{detail}");
        }
    }
}
