//! Extractors: the row's number in the path, the page of a history, and the body.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body as HttpBody;
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use percent_encoding::percent_decode_str;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use super::auth::Authenticated;
use super::error::ApiError;
use super::validate::{Errors, Form, Read, path_id, query_number, read_body};
use crate::context::Ctx;
use crate::db::tenants::TenantRow;
use crate::lifecycle::history::Page;

/// Most bytes of a body.
const MAX_BODY: usize = 1024 * 1024;

/// Most bytes of a body that needs no permit.
const SMALL_BODY: usize = 16 * 1024;

/// Most larger bodies that are received at the same time.
const LARGE_BODIES: usize = 16;

/// Longest time for receiving a body.
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

/// A row and the page of its history. The row's number is the last part of the path but one, the page is in the parameters
/// `after` and `limit`. Errors in all of them are reported together.
#[derive(Debug)]
pub struct HistoryOf {
    /// The number of the row.
    pub id: i64,
    /// The page.
    pub page: Page,
}

impl<S: Sync> FromRequestParts<S> for HistoryOf {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let owner = parts.uri.path().rsplit('/').nth(1).unwrap_or_default();
        // Every query can be read as pairs of texts.
        let query: Query<Vec<(String, String)>> =
            Query::try_from_uri(&parts.uri).unwrap_or_default();
        let mut errors = Errors::default();
        let id = errors.record(path_id(&percent_decoded(owner)));
        let mut number = |name: &str, range| {
            // If a parameter is there twice, the last one counts.
            let (_, text) = query.iter().rfind(|(key, _)| key == name)?;
            errors.record(query_number(name, text, range))
        };
        let mut page = Page::default();
        if let Some(limit) = number("limit", 1..=i64::from(Page::MAX_LIMIT)) {
            page.limit = u32::try_from(limit).unwrap_or(Page::MAX_LIMIT);
        }
        page.after = number("after", 0..=i64::MAX).unwrap_or(page.after);
        let id = errors.finish(id.flatten())?.ok_or(ApiError::NotFound)?;
        Ok(Self { id, page })
    }
}

fn percent_decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// Receives bodies. Nearly all of them are small and are received at any time. Only a limited number of larger ones is received at
/// once, so that they do not fill the memory.
#[derive(Debug, Clone)]
pub struct BodyReceiver {
    large: Arc<Semaphore>,
}

/// A body, or why it was not received. An extension of its request.
#[derive(Debug, Clone)]
struct Received(Result<Bytes, ApiError>);

/// The permit of a large body. The reply can be as large, and holds the permit until there is memory to send it.
pub type LargeBodyPermit = Option<OwnedSemaphorePermit>;

impl BodyReceiver {
    /// No bodies received yet.
    pub fn new() -> Self {
        Self {
            large: Arc::new(Semaphore::new(LARGE_BODIES)),
        }
    }

    /// Receives the body of a request that may have one. A handler learns of a failure when it reads the body. The request holds
    /// no other permits before the body is received.
    pub async fn receive(&self, request: Request) -> (Request, LargeBodyPermit) {
        if ![Method::POST, Method::PUT].contains(request.method()) {
            return (request, None);
        }
        let (mut parts, body) = request.into_parts();
        let mut permit = None;
        let received = self.collect(&parts.headers, body, &mut permit).await;
        parts.extensions.insert(Received(received));
        (Request::from_parts(parts, HttpBody::empty()), permit)
    }

    async fn collect(
        &self,
        headers: &HeaderMap,
        mut body: HttpBody,
        permit: &mut LargeBodyPermit,
    ) -> Result<Bytes, ApiError> {
        let deadline = Instant::now() + BODY_DEADLINE;
        let announced = headers
            .get(CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        if announced.is_some_and(|length| length > MAX_BODY as u64) {
            return Err(ApiError::BodyTooLarge);
        }
        let mut bytes = BytesMut::new();
        loop {
            let frame = timeout_at(deadline, body.frame()).await;
            let Some(frame) = frame.map_err(|_| ApiError::BodyTimeout)? else {
                return Ok(bytes.freeze());
            };
            // The client broke off: nobody reads this error.
            let frame = frame.map_err(|_| ApiError::UnreadableBody)?;
            let Some(data) = frame.data_ref() else {
                continue;
            };
            let length = bytes.len() + data.len();
            if length > MAX_BODY {
                return Err(ApiError::BodyTooLarge);
            }
            if length > SMALL_BODY && permit.is_none() {
                let free = timeout_at(deadline, Arc::clone(&self.large).acquire_owned()).await;
                let busy = "Too many large bodies are being received";
                let free = free.map_err(|_| ApiError::Unavailable(busy, BODY_DEADLINE))?;
                *permit = free.ok();
            }
            bytes.extend_from_slice(data);
        }
    }
}

/// A request that changes something: its tenant, and what it asks for.
///
/// The body is read first, then the credentials are checked, then errors in the fields are reported, in the order of the
/// original.
#[derive(Debug)]
pub struct Submission<T> {
    tenant: TenantRow,
    form: Read<T>,
}

impl<T: Form + Send> FromRequest<Ctx> for Submission<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, ctx: &Ctx) -> Result<Self, ApiError> {
        let (mut parts, _) = request.into_parts();
        let form = read_form(&mut parts)?;
        let Authenticated(tenant) = Authenticated::from_request_parts(&mut parts, ctx).await?;
        Ok(Self { tenant, form })
    }
}

/// Reads the fields of a body. The tree of the body, which takes many times the memory of its text, is gone after that.
fn read_form<T: Form>(parts: &mut Parts) -> Result<Read<T>, ApiError> {
    let received = parts.extensions.remove();
    let Received(bytes) = received.ok_or(ApiError::UnreadableBody)?;
    let content_type = parts.headers.get(CONTENT_TYPE);
    let content_type = content_type.map(|value| String::from_utf8_lossy(value.as_bytes()));
    let body = read_body(content_type.as_deref(), &bytes?)?;
    Ok(T::from_body(&body))
}

impl<T> Submission<T> {
    /// The tenant, and what it asks for.
    pub fn read(self) -> Result<(TenantRow, T), ApiError> {
        Ok((self.tenant, self.form?))
    }

    /// The same with the row's number in the path. Errors in both are reported together.
    pub fn read_for(self, id: &LastSegment) -> Result<(TenantRow, i64, T), ApiError> {
        let mut errors = Errors::default();
        let id = errors.record(path_id(&id.0));
        let form = errors.record(self.form);
        match errors.finish((id.flatten(), form))? {
            (Some(id), Some(form)) => Ok((self.tenant, id, form)),
            _ => Err(ApiError::NotFound),
        }
    }
}

impl LastSegment {
    /// The row's number. One that no row can have is not found.
    pub fn id(&self) -> Result<i64, ApiError> {
        path_id(&self.0)?.ok_or(ApiError::NotFound)
    }
}

/// The header that identifies a repeated request.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// Longest key of a request, in characters.
const MAX_KEY: usize = 255;

/// Reads the key that identifies a repeated request, if there is one.
pub fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(key) = values.next() else {
        return Ok(None);
    };
    let is_visible = key.as_bytes().iter().all(u8::is_ascii_graphic);
    let why = match key.to_str() {
        _ if values.next().is_some() => "there is more than one Idempotency-Key".into(),
        Ok(key) if is_visible && (1..=MAX_KEY).contains(&key.len()) => {
            return Ok(Some(key.to_owned()));
        }
        _ => format!("an Idempotency-Key has 1 to {MAX_KEY} visible ASCII characters"),
    };
    Err(ApiError::Unprocessable(why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_short_and_visible() {
        let read = |values: &[&[u8]]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(IDEMPOTENCY_KEY, (*value).try_into().unwrap());
            }
            idempotency_key(&headers)
        };
        let longest = [b'k'; MAX_KEY];
        assert!(matches!(read(&[]), Ok(None)));
        for good in [&b"k"[..], b"8e03978e-40d5-43dd-bc93-6894a57f9324", &longest] {
            let key = read(&[good]).unwrap().unwrap();
            assert_eq!(key.as_bytes(), good);
        }
        let too_long = [b'k'; MAX_KEY + 1];
        for bad in [&b""[..], b" ", b"a b", b"a\tb", b"\xc3\xa9", &too_long] {
            let refused = matches!(read(&[bad]), Err(ApiError::Unprocessable(_)));
            assert!(refused, "{bad:?}");
        }
        assert!(matches!(
            read(&[b"a", b"a"]),
            Err(ApiError::Unprocessable(_))
        ));
    }

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
