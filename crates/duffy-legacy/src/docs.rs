//! The page that shows the old API's description, without anything from another host.

use std::borrow::Cow;
use std::sync::Arc;

use axum::http::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION,
};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use axum::{Extension, Router};
use bytes::Bytes;
use duffy_listener::Fixed;

use crate::openapi;
use crate::reply::Refused;

/// Paths of pages; each is also found with a slash at the end.
pub const PAGES: [&str; 3] = ["/docs", "/redoc", "/openapi.json"];

/// Lets nothing be loaded from elsewhere, whatever the page's scripts try.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
     img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'",
);

const PAGE: &str = r#"<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Duffy, the old API</title>
<link rel="stylesheet" href="docs/swagger-ui.css">
<link rel="icon" href="docs/favicon-32x32.png">
</head>
<body>
<div id="old-api"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"#;

const START: &str = r##"SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#old-api",
  validatorUrl: null,
});
"##;

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// The page, what it loads, and the description itself.
pub fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let description = Bytes::from(openapi::document().to_string());
    let page = || get(async || file(HTML, Bytes::from_static(PAGE.as_bytes())));
    let start = get(async || file(SCRIPT, Bytes::from_static(START.as_bytes())));
    let mut routes: Vec<(String, MethodRouter<S>)> = [
        (
            "/openapi.json",
            get(async || file("application/json", description)),
        ),
        ("/docs", page()),
        ("/docs/start.js", start),
        ("/redoc", get(async || to_docs())),
    ]
    .map(|(path, route)| (path.to_owned(), route))
    .into();
    let swagger_ui = [
        ("swagger-ui-bundle.js", SCRIPT),
        ("swagger-ui.css", "text/css; charset=utf-8"),
        ("favicon-32x32.png", "image/png"),
    ];
    for (name, kind) in swagger_ui {
        if let Some((content, gzipped)) = swagger_file(name) {
            let route = get(async move || asset(kind, content, gzipped));
            routes.push((format!("/docs/{name}"), route));
        }
    }
    routes
        .into_iter()
        .fold(Router::new(), |router, (path, route)| {
            router.route(&path, route.fallback(async || Refused::Method))
        })
}

/// There is one page of documentation; old bookmarks lead to it.
fn to_docs() -> Response {
    let location = HeaderValue::from_static("docs");
    (StatusCode::TEMPORARY_REDIRECT, [(LOCATION, location)]).into_response()
}

/// A file of Swagger UI. All replies share its bytes.
fn swagger_file(name: &str) -> Option<(Bytes, bool)> {
    let config = Arc::new(utoipa_swagger_ui::Config::from("openapi.json"));
    match utoipa_swagger_ui::serve(name, config) {
        Ok(Some(found)) => {
            let content = match found.bytes {
                Cow::Borrowed(bytes) => Bytes::from_static(bytes),
                Cow::Owned(bytes) => Bytes::from(bytes),
            };
            Some((content, found.gzpipped))
        }
        Ok(None) => {
            tracing::error!(file.name = name, "a file of the documentation is missing");
            None
        }
        Err(error) => {
            tracing::error!(%error, file.name = name, "cannot serve a file of the documentation");
            None
        }
    }
}

fn asset(kind: &'static str, content: Bytes, gzipped: bool) -> Response {
    let mut reply = file(kind, content);
    let headers = reply.headers_mut();
    let cache = HeaderValue::from_static("public, max-age=3600");
    headers.insert(CACHE_CONTROL, cache);
    if gzipped {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    reply
}

fn file(kind: &'static str, content: Bytes) -> Response {
    let mut reply = (StatusCode::OK, Extension(Fixed), content).into_response();
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CONTENT_SECURITY_POLICY, POLICY);
    reply
}
