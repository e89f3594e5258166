//! Every route, on one page.

use axum::extract::State;
use axum::http::header::LOCATION;
use axum::http::{HeaderName, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, any, get};
use axum::{Extension, Json, Router, middleware};
use serde_json::{Value, json};
use utoipa::openapi::path::PathItem;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};
use utoipa_axum::routes;

use super::error::ApiError;
use super::lists::Lists;
use super::{docs, nodes, openapi, pools, request, sessions, tenants};
use crate::context::Ctx;
use crate::db::tenants::find_tenant_by_name;

/// The endpoints of the API, with their description.
fn endpoints() -> OpenApiRouter<Ctx> {
    OpenApiRouter::with_openapi(openapi::frame())
        .routes(closed(routes!(
            sessions::list_sessions,
            sessions::create_session
        )))
        .routes(closed(routes!(
            sessions::show_session,
            sessions::update_session
        )))
        .routes(closed(routes!(sessions::list_session_events)))
        .routes(closed(routes!(pools::list_pools)))
        .routes(closed(routes!(pools::show_pool)))
        .routes(closed(routes!(nodes::list_nodes, nodes::create_node)))
        .routes(closed(routes!(nodes::show_node)))
        .routes(closed(routes!(nodes::list_node_events)))
        .routes(closed(routes!(
            tenants::list_tenants,
            tenants::create_tenant
        )))
        .routes(closed(routes!(
            tenants::show_tenant,
            tenants::update_tenant
        )))
}

/// The web API: endpoints, documentation and health, with what is done around each request.
pub fn router(ctx: Ctx) -> Router {
    let app = ctx.config.app.as_ref();
    let proxies = app.map(|app| app.trusted_proxies.clone());
    let desk = request::Desk::new(ctx.tasks.clone(), proxies.unwrap_or_default());
    let (mut router, document) = endpoints().split_for_parts();
    let slashed = document.paths.paths.keys().map(String::as_str);
    for path in slashed.chain(docs::PAGES) {
        router = router.route(&format!("{path}/"), any(without_slash));
    }
    let read_only = HeaderValue::from_static("GET, HEAD");
    router = match docs::routes(&document, |route| refusing(route, read_only.clone())) {
        Ok(docs) => router.merge(docs),
        Err(error) => {
            tracing::error!(%error, "the API's description cannot be written");
            router
        }
    };
    router
        .route("/healthz", refusing(get(health), read_only.clone()))
        .fallback(async || ApiError::NotFound)
        .with_state(ctx)
        .layer(Extension(Lists::new()))
        .layer(middleware::from_fn_with_state(desk, request::handle))
}

/// The API's description, as `/openapi.json` has it.
pub fn openapi_document() -> utoipa::openapi::OpenApi {
    endpoints().into_openapi()
}

/// Refuses other methods than those described, also `HEAD`, as in the original.
fn closed((schemas, paths, route): UtoipaMethodRouter<Ctx>) -> UtoipaMethodRouter<Ctx> {
    let described = |item: &PathItem| {
        [
            ("GET", item.get.is_some()),
            ("POST", item.post.is_some()),
            ("PUT", item.put.is_some()),
        ]
    };
    let methods: Vec<&str> = paths
        .paths
        .values()
        .flat_map(described)
        .filter_map(|(method, there)| there.then_some(method))
        .collect();
    let allow = HeaderValue::try_from(methods.join(", "))
        .unwrap_or_else(|_| HeaderValue::from_static("GET"));
    let head = ApiErrorHandler(allow.clone());
    let route = refusing(route, allow).head(async move || head.refuse());
    (schemas, paths, route)
}

fn refusing<S: Clone + Send + Sync + 'static>(
    route: MethodRouter<S>,
    allow: HeaderValue,
) -> MethodRouter<S> {
    let handler = ApiErrorHandler(allow);
    route.fallback(async move || handler.refuse())
}

/// Answers what is not allowed.
#[derive(Clone)]
struct ApiErrorHandler(HeaderValue);

impl ApiErrorHandler {
    fn refuse(&self) -> ApiError {
        ApiError::MethodNotAllowed {
            allow: self.0.clone(),
        }
    }
}

/// Leads from a path with a slash at the end to the one without.
async fn without_slash(uri: Uri) -> Response {
    let mut location = uri.path().trim_end_matches('/').to_owned();
    if let Some(query) = uri.query() {
        location.push('?');
        location.push_str(query);
    }
    let header: Option<(HeaderName, HeaderValue)> = HeaderValue::try_from(location)
        .ok()
        .map(|location| (LOCATION, location));
    match header {
        Some(header) => (StatusCode::TEMPORARY_REDIRECT, [header]).into_response(),
        None => ApiError::NotFound.into_response(),
    }
}

/// Whether the server can do its work: 200 when the database answers.
async fn health(State(ctx): State<Ctx>) -> Result<Json<Value>, ApiError> {
    find_tenant_by_name(&ctx.db, "").await?;
    Ok(Json(json!({"status": "ok"})))
}
