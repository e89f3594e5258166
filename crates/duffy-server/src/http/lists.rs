//! Lists, which can be large: few are made at once, and requests for the same list share one.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use duffy_listener::{Content, ListError};
use serde::Serialize;

use super::error::ApiError;

/// Most lists that are made at once.
const AT_ONCE: usize = 2;

/// How long a request waits until its list is made.
const QUEUE: Duration = Duration::from_secs(15);

/// Which list.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum List {
    /// The nodes in use.
    Nodes,
    /// The active sessions, of all tenants or of one.
    Sessions(Option<i64>),
    /// The tenants, all or one.
    Tenants(Option<i64>),
}

/// Where lists are made; an extension of each request.
#[derive(Debug, Clone)]
pub struct Lists(Arc<duffy_listener::Lists<List>>);

impl Lists {
    /// None made yet.
    pub fn new() -> Self {
        Self(Arc::new(duffy_listener::Lists::new(AT_ONCE, QUEUE)))
    }

    /// Answers with a list in JSON that is made for this request or, after it came, for another one.
    pub async fn share(
        &self,
        list: List,
        make: impl Future<Output = Result<Bytes, ApiError>>,
    ) -> Result<Response, ApiError> {
        let list = self.0.share(list, make).await;
        Ok(reply(list?))
    }

    /// Answers with a list for this request alone.
    pub async fn make(
        &self,
        make: impl Future<Output = Result<Bytes, ApiError>>,
    ) -> Result<Response, ApiError> {
        let list = self.0.make(make).await;
        Ok(reply(list?))
    }
}

/// What is read, in JSON.
pub async fn written<T: Serialize>(
    read: impl Future<Output = Result<T, ApiError>>,
) -> Result<Bytes, ApiError> {
    let json = serde_json::to_vec(&read.await?).map_err(|error| ApiError::internal(&error))?;
    Ok(json.into_boxed_slice().into())
}

fn reply(list: Content) -> Response {
    let mut reply = Body::from(list.bytes()).into_response();
    let json = HeaderValue::from_static("application/json");
    reply.headers_mut().insert(CONTENT_TYPE, json);
    reply.extensions_mut().insert(list);
    reply
}

impl From<ListError<ApiError>> for ApiError {
    fn from(error: ListError<ApiError>) -> Self {
        let detail = match error {
            ListError::Failed(error) => return error,
            ListError::Busy => "Too many lists are being made",
            ListError::FailedForAnother => "The list could not be made",
        };
        ApiError::Unavailable {
            detail,
            retry_after: Duration::from_secs(1),
        }
    }
}
