//! What handlers are handed of a request: the row's number in the path, and the body.

use std::error::Error as _;
use std::time::Duration;

use axum::body::Body as HttpBody;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::request::Parts;
use bytes::Bytes;
use http_body_util::LengthLimitError;

use super::auth::Authenticated;
use super::error::ApiError;
use super::validate::{Body, Errors, Read, Unreadable, path_id, read_body};
use crate::context::Ctx;
use crate::db::tenants::TenantRow;

/// Most bytes of a body.
const MAX_BODY: usize = 1024 * 1024;

/// Time in which a body has to come.
const BODY_DEADLINE: Duration = Duration::from_secs(30);

/// The last part of the path, decoded.
#[derive(Debug)]
pub struct LastSegment(pub String);

impl<S: Sync> FromRequestParts<S> for LastSegment {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let segment = parts.uri.path().rsplit('/').next().unwrap_or_default();
        let segment = percent_decoded(segment);
        if segment.contains('/') {
            return Err(ApiError::NotFound);
        }
        Ok(Self(segment))
    }
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let code = tail
            .get(..2)
            .filter(|_| first == b'%')
            .filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(code.unwrap_or(first));
        rest = tail
            .get(if code.is_some() { 2 } else { 0 }..)
            .unwrap_or_default();
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A request that changes something: who asks, and for what.
///
/// The body is read first, then the credentials are looked at, then the fields: in this order the
/// original finds what is wrong.
#[derive(Debug)]
pub struct Submission {
    /// Who asks.
    pub tenant: TenantRow,
    body: Body,
}

impl FromRequest<Ctx> for Submission {
    type Rejection = ApiError;

    async fn from_request(request: Request, ctx: &Ctx) -> Result<Self, ApiError> {
        let (mut parts, body) = request.into_parts();
        let bytes = tokio::time::timeout(BODY_DEADLINE, receive(&parts.headers, body))
            .await
            .map_err(|_| ApiError::BodyTimeout)??;
        let content_type = parts.headers.get(CONTENT_TYPE);
        let content_type = content_type.map(|value| String::from_utf8_lossy(value.as_bytes()));
        let body = read_body(content_type.as_deref(), &bytes).map_err(|error| match error {
            Unreadable::Json(error) => ApiError::Invalid(vec![*error]),
            Unreadable::Encoding => ApiError::UnreadableBody,
        })?;
        let Authenticated(tenant) = Authenticated::from_request_parts(&mut parts, ctx).await?;
        Ok(Self { tenant, body })
    }
}

async fn receive(headers: &HeaderMap, body: HttpBody) -> Result<Bytes, ApiError> {
    let announced = headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > MAX_BODY as u64) {
        return Err(ApiError::BodyTooLarge);
    }
    axum::body::to_bytes(body, MAX_BODY).await.map_err(|error| {
        if error
            .source()
            .is_some_and(<dyn std::error::Error>::is::<LengthLimitError>)
        {
            ApiError::BodyTooLarge
        } else {
            // The client broke off: nobody reads this.
            ApiError::UnreadableBody
        }
    })
}

impl Submission {
    /// Reads the body's fields.
    pub fn read<T>(
        self,
        read: impl FnOnce(&Body, &mut Errors) -> Read<T>,
    ) -> Result<(TenantRow, T), ApiError> {
        let mut errors = Errors::new();
        let value = read(&self.body, &mut errors);
        let value = errors.finish(value).map_err(ApiError::Invalid)?;
        Ok((self.tenant, value))
    }

    /// Reads the row's number in the path and the body's fields; errors in both are told.
    pub fn read_for<T>(
        self,
        id: &LastSegment,
        read: impl FnOnce(&Body, &mut Errors) -> Read<T>,
    ) -> Result<(TenantRow, i64, T), ApiError> {
        let mut errors = Errors::new();
        let id = path_id(&id.0, &mut errors);
        let value = read(&self.body, &mut errors);
        let both = id.and_then(|id| Ok((id, value?)));
        let (id, value) = errors.finish(both).map_err(ApiError::Invalid)?;
        Ok((self.tenant, id.ok_or(ApiError::NotFound)?, value))
    }
}

impl LastSegment {
    /// The row's number; one that no row can have is not found.
    pub fn id(&self) -> Result<i64, ApiError> {
        let mut errors = Errors::new();
        let id = path_id(&self.0, &mut errors);
        let id = errors.finish(id).map_err(ApiError::Invalid)?;
        id.ok_or(ApiError::NotFound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_path_is_decoded() {
        for (text, decoded) in [
            ("a", "a"),
            ("%201", " 1"),
            ("a%2Fb", "a/b"),
            ("%", "%"),
            ("%2", "%2"),
            ("%zz%41", "%zzA"),
            ("%c3%a9+", "é+"),
            ("%ff", "\u{fffd}"),
        ] {
            assert_eq!(percent_decoded(text), decoded, "{text}");
        }
    }
}
