//! The pages that show the API's description, without anything from another host.

use std::borrow::Cow;
use std::sync::Arc;

use axum::http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::MethodRouter;
use axum::{Extension, Router};
use bytes::Bytes;
use duffy_listener::Fixed;

/// Lets nothing be loaded from elsewhere, whatever the pages' scripts try.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
     img-src 'self' data:; font-src 'self' data:; connect-src 'self'; worker-src blob:; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

const DOCS: &str = r#"<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Duffy - Swagger UI</title>
<link rel="stylesheet" href="docs/swagger-ui.css">
<link rel="icon" href="docs/favicon-32x32.png">
</head>
<body>
<div id="swagger-ui"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"#;

const START: &str = r##"SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  validatorUrl: null,
});
"##;

const REDOC: &str = r#"<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Duffy - ReDoc</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="redoc/page.css">
</head>
<body>
<redoc spec-url="openapi.json"></redoc>
<script src="redoc/redoc.standalone.js"></script>
</body>
</html>
"#;

const PAGE_STYLE: &str = "body { margin: 0; padding: 0; }\n";

/// Version 2.5.4 with its logo, which comes from another host, taken out.
const REDOC_SCRIPT: &[u8] = include_bytes!("../../assets/redoc/redoc.standalone.js");

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";

/// Paths of pages; each is also found with a slash at the end.
pub const PAGES: [&str; 3] = ["/docs", "/redoc", "/openapi.json"];

/// The pages, what they load, and the description itself. `close` finishes each of them, saying
/// what becomes of other methods.
pub fn routes<S: Clone + Send + Sync + 'static>(
    document: &utoipa::openapi::OpenApi,
    close: impl Fn(MethodRouter<S>) -> MethodRouter<S>,
) -> Result<Router<S>, serde_json::Error> {
    let document = Bytes::from(document.to_json()?);
    let fixed = |kind: &'static str, content: Bytes| {
        axum::routing::get(move || std::future::ready(file(kind, content, false)))
    };
    let swagger_ui = [
        ("swagger-ui-bundle.js", SCRIPT),
        ("swagger-ui.css", STYLE),
        ("favicon-32x32.png", "image/png"),
    ];
    let mut router = Router::new();
    for (name, kind) in swagger_ui {
        let Some((content, gzipped)) = swagger_file(name) else {
            continue;
        };
        let serve = move || std::future::ready(file(kind, content, gzipped));
        let route = close(axum::routing::get(serve));
        router = router.route(&format!("/docs/{name}"), route);
    }
    let text = |kind, content: &'static str| fixed(kind, Bytes::from_static(content.as_bytes()));
    Ok(router
        .route("/openapi.json", close(fixed("application/json", document)))
        .route("/docs", close(text(HTML, DOCS)))
        .route("/docs/start.js", close(text(SCRIPT, START)))
        .route("/redoc", close(text(HTML, REDOC)))
        .route("/redoc/page.css", close(text(STYLE, PAGE_STYLE)))
        .route(
            "/redoc/redoc.standalone.js",
            close(fixed(SCRIPT, Bytes::from_static(REDOC_SCRIPT))),
        ))
}

/// A file of Swagger UI, and whether it is compressed. All replies share its bytes.
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

fn file(kind: &'static str, content: Bytes, gzipped: bool) -> Response {
    let mut reply = (StatusCode::OK, Extension(Fixed), content).into_response();
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CONTENT_SECURITY_POLICY, POLICY);
    if kind != HTML && kind != "application/json" {
        let cache = HeaderValue::from_static("public, max-age=3600");
        headers.insert(CACHE_CONTROL, cache);
    }
    if gzipped {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    reply
}
