//! The pages that show an API's description, without anything from another host.

use std::borrow::Cow;
use std::sync::Arc;

use axum::http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue};
use axum::routing::{MethodRouter, get};
use axum::{Extension, Router};
use bytes::Bytes;

use crate::shared_bytes::StaticBytes;

/// Paths of the pages and the description.
pub const PAGES: [&str; 3] = ["/docs", "/redoc", "/openapi.json"];

/// Content type of a page.
pub const HTML: &str = "text/html; charset=utf-8";
/// Content type of a script.
pub const SCRIPT: &str = "text/javascript; charset=utf-8";
/// Content type of a style sheet.
pub const STYLE: &str = "text/css; charset=utf-8";
const JSON: &str = "application/json";

/// The page of Swagger UI.
fn page(title: &str) -> String {
    format!(
        r#"<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="stylesheet" href="docs/swagger-ui.css">
<link rel="icon" href="docs/favicon-32x32.png">
</head>
<body>
<div id="swagger-ui"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"#
    )
}

const START: &str = r##"SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  validatorUrl: null,
});
"##;

/// Files of Swagger UI.
const SWAGGER_UI: [(&str, &str); 3] = [
    ("swagger-ui-bundle.js", SCRIPT),
    ("swagger-ui.css", STYLE),
    ("favicon-32x32.png", "image/png"),
];

/// The documentation of an API. All replies share the bytes of its files.
#[derive(Debug)]
pub struct Docs {
    policy: HeaderValue,
    files: Vec<(String, HeaderMap, Bytes)>,
}

impl Docs {
    /// Swagger UI at `/docs` and the description at `/openapi.json`. `policy` limits what the pages may load
    /// (`Content-Security-Policy`).
    pub fn new(title: &str, description: String, policy: HeaderValue) -> Self {
        let mut docs = Self {
            policy,
            files: Vec::new(),
        }
        .with_file("/openapi.json", JSON, description)
        .with_file("/docs", HTML, page(title))
        .with_file("/docs/start.js", SCRIPT, START);
        for (name, kind) in SWAGGER_UI {
            let Some((content, gzipped)) = swagger_file(name) else {
                continue;
            };
            docs = docs.with_file(&format!("/docs/{name}"), kind, content);
            if gzipped && let Some((_, headers, _)) = docs.files.last_mut() {
                headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            }
        }
        docs
    }

    /// Adds a file of this content type.
    #[must_use]
    pub fn with_file(mut self, path: &str, kind: &'static str, content: impl Into<Bytes>) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(CONTENT_SECURITY_POLICY, self.policy.clone());
        if kind != HTML && kind != JSON {
            let cache = HeaderValue::from_static("public, max-age=3600");
            headers.insert(CACHE_CONTROL, cache);
        }
        self.files.push((path.to_owned(), headers, content.into()));
        self
    }

    /// Routes to the files. `close` says what becomes of other methods than `GET` and `HEAD`.
    pub fn routes<S: Clone + Send + Sync + 'static>(
        self,
        close: impl Fn(MethodRouter<S>) -> MethodRouter<S>,
    ) -> Router<S> {
        self.files
            .into_iter()
            .fold(Router::new(), |router, (path, headers, content)| {
                let serve = async move || (Extension(StaticBytes), headers, content);
                router.route(&path, close(get(serve)))
            })
    }
}

/// A file of Swagger UI, and whether it is compressed.
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
