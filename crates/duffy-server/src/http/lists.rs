//! Lists, which can be large: a limited number is made at the same time, and requests for the same list share one.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use duffy_web::ListError;
use serde::Serialize;

use super::error::ApiError;

/// Most lists that are made at the same time.
const AT_ONCE: usize = 2;

/// How long a request waits until its list is made.
const QUEUE: Duration = Duration::from_secs(15);

/// A list.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum List {
    /// The nodes in use.
    Nodes,
    /// The active sessions, of all tenants or of one.
    Sessions(Option<i64>),
    /// The tenants, all or one.
    Tenants(Option<i64>),
}

/// Makes lists. An extension of each request.
pub type Lists = Arc<duffy_web::Lists<List>>;

/// No lists made yet.
pub fn new() -> Lists {
    Arc::new(duffy_web::Lists::new(AT_ONCE, QUEUE))
}

/// Writes what `read` returns in JSON.
pub async fn written<T: Serialize>(
    read: impl Future<Output = Result<T, ApiError>>,
) -> Result<Bytes, ApiError> {
    let json = serde_json::to_vec(&read.await?).map_err(|error| ApiError::internal(&error))?;
    Ok(json.into_boxed_slice().into())
}

impl From<ListError<ApiError>> for ApiError {
    fn from(error: ListError<ApiError>) -> Self {
        let detail = match error {
            ListError::Failed(error) => return error,
            ListError::Busy => "Too many lists are being made",
            ListError::FailedForAnother => "The list could not be made",
        };
        ApiError::Unavailable(detail, Duration::from_secs(1))
    }
}
