//! The pages that show the API's description, without anything from another host.

use axum::Router;
use axum::http::HeaderValue;
use axum::routing::MethodRouter;
use duffy_web::docs::{Docs, HTML, SCRIPT, STYLE};

/// Loads nothing from other hosts, whatever the pages' scripts try.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
     img-src 'self' data:; font-src 'self' data:; connect-src 'self'; worker-src blob:; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

const REDOC: &str = include_str!("../../assets/redoc.html");

const PAGE_STYLE: &str = "body { margin: 0; padding: 0; }\n";

/// Version 2.5.4 without its logo, which another host serves.
const REDOC_SCRIPT: &[u8] = include_bytes!("../../assets/redoc/redoc.standalone.js");

/// The pages, their files, and the description. `close` says what becomes of other methods than `GET` and `HEAD`.
pub fn routes<S: Clone + Send + Sync + 'static>(
    document: &utoipa::openapi::OpenApi,
    close: impl Fn(MethodRouter<S>) -> MethodRouter<S>,
) -> Result<Router<S>, serde_json::Error> {
    let docs = Docs::new("Duffy - Swagger UI", document.to_json()?, POLICY)
        .with_file("/redoc", HTML, REDOC)
        .with_file("/redoc/page.css", STYLE, PAGE_STYLE)
        .with_file("/redoc/redoc.standalone.js", SCRIPT, REDOC_SCRIPT);
    Ok(docs.routes(close))
}
