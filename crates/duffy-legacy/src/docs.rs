//! The page that shows the old API's description.

use axum::Router;
use axum::http::HeaderValue;
use axum::response::Redirect;
use axum::routing::{MethodRouter, get};
use duffy_web::docs::Docs;

use crate::openapi;
use crate::reply::Refused;

/// Loads nothing from other hosts, whatever the page's scripts try.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
     img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'",
);

/// The page, its files, and the description.
pub fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let close = |route: MethodRouter<S>| route.fallback(async || Refused::Method);
    // There is one page. `/redoc` is for bookmarks.
    let redoc = get(async || Redirect::temporary("docs"));
    let description = openapi::document().to_string();
    Docs::new("Duffy, the old API", description, POLICY)
        .routes(close)
        .route("/redoc", close(redoc))
}
