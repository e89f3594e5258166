//! The page that shows the old API's description, without anything from another host.

use std::sync::Arc;

use axum::Router;
use axum::extract::Path;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION,
};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use bytes::Bytes;

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
    let routes: [(&str, MethodRouter<S>); 5] = [
        (
            "/openapi.json",
            get(async || file("application/json", description)),
        ),
        ("/docs", page()),
        ("/docs/start.js", start),
        ("/docs/{file}", get(swagger_file)),
        ("/redoc", get(async || to_docs())),
    ];
    routes
        .into_iter()
        .fold(Router::new(), |router, (path, route)| {
            router.route(path, route.fallback(async || Refused::Method))
        })
}

/// There is one page of documentation; old bookmarks lead to it.
fn to_docs() -> Response {
    let location = HeaderValue::from_static("docs");
    (StatusCode::TEMPORARY_REDIRECT, [(LOCATION, location)]).into_response()
}

async fn swagger_file(Path(name): Path<String>) -> Response {
    let kind = match name.as_str() {
        "swagger-ui-bundle.js" => SCRIPT,
        "swagger-ui.css" => "text/css; charset=utf-8",
        "favicon-32x32.png" => "image/png",
        _ => return Refused::NotFound.into_response(),
    };
    let config = Arc::new(utoipa_swagger_ui::Config::from("openapi.json"));
    match utoipa_swagger_ui::serve(&name, config) {
        Ok(Some(found)) => {
            let mut reply = file(kind, Bytes::from(found.bytes.into_owned()));
            let headers = reply.headers_mut();
            let cache = HeaderValue::from_static("public, max-age=3600");
            headers.insert(CACHE_CONTROL, cache);
            if found.gzpipped {
                headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            }
            reply
        }
        Ok(None) => Refused::NotFound.into_response(),
        Err(error) => {
            tracing::error!(%error, file.name = name, "cannot serve a file of the documentation");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

fn file(kind: &'static str, content: Bytes) -> Response {
    let mut reply = (StatusCode::OK, content).into_response();
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CONTENT_SECURITY_POLICY, POLICY);
    reply
}
