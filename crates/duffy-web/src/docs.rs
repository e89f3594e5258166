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

/// The page of Swagger UI, with `{title}` in it, and what starts it.
const PAGE: &str = include_str!("../assets/docs.html");
const START: &str = include_str!("../assets/start.js");

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
        let docs = Self {
            policy,
            files: Vec::new(),
        };
        docs.with_file("/openapi.json", JSON, description)
            .with_file("/docs", HTML, PAGE.replace("{title}", title))
            .with_file("/docs/start.js", SCRIPT, START)
            .with_swagger_file("swagger-ui-bundle.js", SCRIPT)
            .with_swagger_file("swagger-ui.css", STYLE)
            .with_swagger_file("favicon-32x32.png", "image/png")
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

    /// Adds a file of Swagger UI.
    fn with_swagger_file(self, name: &str, kind: &'static str) -> Self {
        let config = Arc::new(utoipa_swagger_ui::Config::from("openapi.json"));
        let found = utoipa_swagger_ui::serve(name, config)
            .and_then(|found| found.ok_or_else(|| "it is missing".into()));
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                tracing::error!(%error, file.name = name, "cannot serve a file of the documentation");
                return self;
            }
        };
        let content = match found.bytes {
            Cow::Borrowed(bytes) => Bytes::from_static(bytes),
            Cow::Owned(bytes) => Bytes::from(bytes),
        };
        let mut docs = self.with_file(&format!("/docs/{name}"), kind, content);
        if found.gzpipped
            && let Some((_, headers, _)) = docs.files.last_mut()
        {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        docs
    }

    /// Returns routes to the files. `close` adds what answers other methods than `GET` and `HEAD`.
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
