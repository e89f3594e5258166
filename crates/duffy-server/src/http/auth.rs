//! Authentication: HTTP Basic with the tenant's name and its API key.

use axum::extract::{FromRequestParts, OptionalFromRequestParts};
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use duffy_web::RequestInfo;

use super::error::ApiError;
use crate::context::Ctx;
use crate::credentials::{Attempt, Verdict};
use crate::db::tenants::{StoredKey, TenantRow, find_tenant_by_name};
use crate::lifecycle::tenants::remember_digest;

/// The tenant that sends the request. A request without credentials is refused; as an
/// `Option`, it is `None`. Wrong credentials are always refused.
#[derive(Debug)]
pub struct Authenticated(pub TenantRow);

impl FromRequestParts<Ctx> for Authenticated {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, ctx: &Ctx) -> Result<Self, ApiError> {
        let tenant = <Self as OptionalFromRequestParts<Ctx>>::from_request_parts(parts, ctx);
        tenant.await?.ok_or(ApiError::NotAuthenticated)
    }
}

impl OptionalFromRequestParts<Ctx> for Authenticated {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, ctx: &Ctx) -> Result<Option<Self>, ApiError> {
        let Some((name, key)) = credentials(&parts.headers)? else {
            return Ok(None);
        };
        // No tenant has such a name, and the database refuses it.
        let tenant = if name.contains('\0') {
            None
        } else {
            find_tenant_by_name(&ctx.db, &name).await?
        };
        let stored = tenant.as_ref().map(|tenant| StoredKey {
            hash: tenant.api_key.clone(),
            digest: tenant.api_key_digest.clone(),
        });
        let info = parts.extensions.get::<RequestInfo>();
        let attempt = Attempt {
            name: &name,
            key: &key,
            stored: stored.as_ref(),
            peer: info.and_then(|info| info.client),
        };
        match ctx.credentials.verify(attempt).await? {
            Verdict::Verified => {}
            Verdict::VerifiedByHash { digest } => {
                if let Some(tenant) = &tenant {
                    remember_digest(ctx, tenant, &digest).await;
                }
            }
            Verdict::Refused => {
                tracing::info!(peer = ?attempt.peer, "wrong credentials");
                return Err(ApiError::Unauthorized);
            }
            Verdict::TooManyFailures { retry_after } => {
                tracing::warn!(peer = ?attempt.peer, "too many wrong credentials");
                return Err(ApiError::TooManyFailures(retry_after));
            }
        }
        let tenant = tenant.ok_or(ApiError::Unauthorized)?;
        tracing::Span::current().record("tenant.name", &tenant.name);
        if tenant.retired_at.is_some() {
            return Err(ApiError::Forbidden);
        }
        Ok(Some(Self(tenant)))
    }
}

/// Base64 with or without its padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// Reads name and key from the header. `None` when there is no such header, or one of another scheme.
fn credentials(headers: &HeaderMap) -> Result<Option<(String, String)>, ApiError> {
    let Some(header) = headers.get(AUTHORIZATION) else {
        return Ok(None);
    };
    let header = String::from_utf8_lossy(header.as_bytes());
    let (scheme, encoded) = header.split_once(' ').unwrap_or((&header, ""));
    if !scheme.eq_ignore_ascii_case("basic") {
        return Ok(None);
    }
    // ASCII only, as in the original.
    let decoded = BASE64
        .decode(encoded.trim())
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .filter(|text| text.is_ascii())
        .ok_or(ApiError::InvalidCredentials)?;
    let (name, key) = decoded
        .split_once(':')
        .ok_or(ApiError::InvalidCredentials)?;
    Ok(Some((name.to_owned(), key.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(header: &[u8]) -> Result<Option<(String, String)>, ApiError> {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, header.try_into().unwrap());
        credentials(&headers)
    }

    #[test]
    fn headers_are_read_as_the_original_reads_them() {
        assert!(matches!(credentials(&HeaderMap::new()), Ok(None)));
        for none in [
            b"".as_slice(),
            b"Bearer abc",
            b"\xff",
            b"Basicx dGVuYW50OmE=",
        ] {
            assert!(matches!(parse(none), Ok(None)), "{none:?}");
        }
        for invalid in [
            "Basic",
            "Basic ",
            "Basic !!!",
            "BASIC dGVuYW50",
            "Basic w6k6w6k=",
            "Basic a b",
        ] {
            let found = parse(invalid.as_bytes());
            assert!(
                matches!(found, Err(ApiError::InvalidCredentials)),
                "{invalid:?}"
            );
        }
        for (valid, name, key) in [
            ("Basic dGVuYW50OmE=", "tenant", "a"),
            ("basic  dGVuYW50OmE", "tenant", "a"),
            ("Basic OmE6Yg==", "", "a:b"),
        ] {
            let found = parse(valid.as_bytes()).unwrap().unwrap();
            assert_eq!(found, (name.to_owned(), key.to_owned()));
        }
    }
}
