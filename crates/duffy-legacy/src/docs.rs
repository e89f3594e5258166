//! The page with the old API's description.

use axum::Router;
use axum::http::HeaderValue;
use axum::response::Redirect;
use axum::routing::{MethodRouter, get};
use duffy_web::docs::Docs;

use crate::reply::LegacyError;

/// The page's scripts cannot load anything from other hosts.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
     img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'",
);

/// The description, with `{version}` in it.
const DESCRIPTION: &str = include_str!("../assets/openapi.json");

/// Returns routes to the page, its files, and the description.
pub fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let close = |route: MethodRouter<S>| route.fallback(async || LegacyError::Method);
    // There is only one page. `/redoc` is for bookmarks.
    let redoc = get(async || Redirect::temporary("docs"));
    let description = DESCRIPTION.replace("{version}", env!("CARGO_PKG_VERSION"));
    Docs::new("Duffy, the old API", description, POLICY)
        .routes(close)
        .route("/redoc", close(redoc))
}
