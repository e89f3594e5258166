//! Every reply that is an error, made in one place.
//!
//! A reply says what the client can do something about. Causes within the server go to the log,
//! where the request's id leads to them.

use std::time::Duration;

use axum::Json;
use axum::http::header::{ALLOW, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use duffy_api::{Detail, ErrorReply, FieldError};

use crate::credentials::CredentialsError;
use crate::db::DbError;
use crate::lifecycle::nodes::NodeError;
use crate::lifecycle::request::error::SessionError;
use crate::lifecycle::tenants::TenantError;

/// What asks for credentials.
const CHALLENGE: HeaderValue = HeaderValue::from_static("Basic realm=\"duffy\"");

/// When to come again after something that passes by itself.
const SOON: Duration = Duration::from_secs(1);

/// Why a request is not granted.
#[derive(Debug)]
pub enum ApiError {
    /// 400: the body cannot be decoded.
    UnreadableBody,
    /// 401: no credentials were given.
    NotAuthenticated,
    /// 401: what was given are no credentials.
    InvalidCredentials,
    /// 401: the credentials are wrong.
    Unauthorized,
    /// 403: not for this tenant.
    Forbidden,
    /// 403: not for this tenant, and why.
    ForbiddenBecause(String),
    /// 404: there is no such thing.
    NotFound,
    /// 405: not with this method.
    MethodNotAllowed {
        /// With which ones.
        allow: HeaderValue,
    },
    /// 408: the body did not come in time.
    BodyTimeout,
    /// 409: it exists already.
    Conflict(String),
    /// 413: the body is too large.
    BodyTooLarge,
    /// 422: fields that do not fit.
    Invalid(Vec<FieldError>),
    /// 422: it cannot be done.
    Unprocessable(String),
    /// 429: too many wrong keys.
    TooManyFailures {
        /// When to try again.
        retry_after: Duration,
    },
    /// 500: our fault; the cause has been logged.
    Internal,
    /// 503: temporarily unavailable.
    Unavailable {
        /// What is in the way.
        detail: &'static str,
        /// When to try again.
        retry_after: Duration,
    },
}

impl ApiError {
    /// 500, with the cause in the log.
    pub fn internal(cause: &(dyn std::error::Error + 'static)) -> Self {
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
            ApiError::MethodNotAllowed { .. } => StatusCode::METHOD_NOT_ALLOWED,
            ApiError::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            ApiError::Conflict(_) => StatusCode::CONFLICT,
            ApiError::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            ApiError::Invalid(_) | ApiError::Unprocessable(_) => StatusCode::UNPROCESSABLE_ENTITY,
            ApiError::TooManyFailures { .. } => StatusCode::TOO_MANY_REQUESTS,
            ApiError::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            ApiError::Unavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn detail(self) -> Detail {
        let text = match self {
            ApiError::UnreadableBody => "There was an error parsing the body",
            ApiError::NotAuthenticated => "Not authenticated",
            ApiError::InvalidCredentials => "Invalid authentication credentials",
            ApiError::Unauthorized => "Unauthorized",
            ApiError::Forbidden => "Forbidden",
            ApiError::NotFound => "Not Found",
            ApiError::MethodNotAllowed { .. } => "Method Not Allowed",
            ApiError::BodyTimeout => "The body was not received in time",
            ApiError::BodyTooLarge => "The body is larger than 1 MiB",
            ApiError::TooManyFailures { .. } => {
                "Too many failed authentications: wait as long as Retry-After says"
            }
            ApiError::Internal => "Internal Server Error",
            ApiError::Unavailable { detail, .. } => detail,
            ApiError::ForbiddenBecause(detail)
            | ApiError::Conflict(detail)
            | ApiError::Unprocessable(detail) => return Detail::Text(detail),
            ApiError::Invalid(fields) => return Detail::Fields(fields),
        };
        Detail::Text(text.to_owned())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let header = match &self {
            ApiError::NotAuthenticated | ApiError::InvalidCredentials => {
                Some((WWW_AUTHENTICATE, CHALLENGE))
            }
            ApiError::MethodNotAllowed { allow } => Some((ALLOW, allow.clone())),
            ApiError::TooManyFailures { retry_after }
            | ApiError::Unavailable { retry_after, .. } => {
                let seconds = retry_after.as_secs() + u64::from(retry_after.subsec_nanos() > 0);
                Some((RETRY_AFTER, HeaderValue::from(seconds)))
            }
            ApiError::UnreadableBody
            // The original sends no challenge with this one, and clients compare.
            | ApiError::Unauthorized
            | ApiError::Forbidden
            | ApiError::ForbiddenBecause(_)
            | ApiError::NotFound
            | ApiError::BodyTimeout
            | ApiError::Conflict(_)
            | ApiError::BodyTooLarge
            | ApiError::Invalid(_)
            | ApiError::Unprocessable(_)
            | ApiError::Internal => None,
        };
        let status = self.status();
        let body = ErrorReply {
            detail: self.detail(),
        };
        let mut reply = (status, Json(body)).into_response();
        if let Some((name, value)) = header {
            reply.headers_mut().insert(name, value);
        }
        reply
    }
}

impl From<DbError> for ApiError {
    fn from(error: DbError) -> Self {
        match error {
            DbError::Unavailable(_) | DbError::Conflict(_) => {
                tracing::error!(error = &error as &dyn std::error::Error, "no database");
                ApiError::Unavailable {
                    detail: "The database is not available",
                    retry_after: SOON,
                }
            }
            other => ApiError::internal(&other),
        }
    }
}

impl From<CredentialsError> for ApiError {
    fn from(error: CredentialsError) -> Self {
        match error {
            CredentialsError::Busy => ApiError::Unavailable {
                detail: "Too many API keys are being checked",
                retry_after: SOON,
            },
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
                tracing::error!(error = &error as &dyn std::error::Error, "no session");
                ApiError::Unavailable {
                    detail: "contextualization of nodes failed",
                    retry_after: Duration::ZERO,
                }
            }
            SessionError::LeaseLost(_) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "no session");
                ApiError::Unavailable {
                    detail: "The session was ended before its nodes were ready",
                    retry_after: Duration::ZERO,
                }
            }
            SessionError::OtherRequest => ApiError::Unprocessable(
                "this Idempotency-Key came with another request before: choose another key".into(),
            ),
            SessionError::FirstStillRuns => ApiError::Unavailable {
                detail: "The first request with this Idempotency-Key is still running",
                retry_after: SOON,
            },
            SessionError::Stopping => ApiError::Unavailable {
                detail: "The server is stopping",
                retry_after: SOON,
            },
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
        let reply = ApiError::TooManyFailures {
            retry_after: Duration::from_millis(1200),
        }
        .into_response();
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
