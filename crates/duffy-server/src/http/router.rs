//! Every route.

use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderValue;
use axum::routing::{MethodRouter, get};
use axum::{Extension, Json, Router, middleware};
use duffy_web::docs::PAGES;
use duffy_web::redirect_slashes;
use serde_json::{Value, json};
use utoipa::openapi::path::PathItem;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};
use utoipa_axum::routes;

use super::error::ApiError;
use super::request::RequestLimits;
use super::{docs, lists, nodes, openapi, pools, request, sessions, tenants};
use crate::context::Ctx;
use crate::db::tenants::find_tenant_by_name;

/// The endpoints of the API, with their description.
fn endpoints() -> OpenApiRouter<Ctx> {
    let endpoints = [
        routes!(sessions::list_sessions, sessions::create_session),
        routes!(sessions::show_session, sessions::update_session),
        routes!(sessions::list_session_events),
        routes!(pools::list_pools),
        routes!(pools::show_pool),
        routes!(nodes::list_nodes, nodes::create_node),
        routes!(nodes::show_node),
        routes!(nodes::list_node_events),
        routes!(tenants::list_tenants, tenants::create_tenant),
        routes!(tenants::show_tenant, tenants::update_tenant),
    ];
    let frame = OpenApiRouter::with_openapi(openapi::frame());
    endpoints
        .into_iter()
        .map(closed)
        .fold(frame, OpenApiRouter::routes)
}

/// The web API: endpoints, documentation and health, with limits around each request.
pub fn router(ctx: Ctx) -> Router {
    let config = Arc::clone(&ctx.config);
    let is_trusted = move |address| {
        let app = config.app.as_ref();
        app.is_some_and(|app| app.trusted_proxies.contains(address))
    };
    let limits = RequestLimits::new(ctx.tasks.clone());
    let (router, document) = endpoints().split_for_parts();
    let paths = document.paths.paths.keys().map(String::as_str);
    let mut router = redirect_slashes(router, paths.chain(PAGES));
    let read_only = HeaderValue::from_static("GET, HEAD");
    router = match docs::routes(&document, |route| refusing(route, read_only.clone())) {
        Ok(docs) => router.merge(docs),
        Err(error) => {
            tracing::error!(%error, "the API's description cannot be written");
            router
        }
    };
    let router = router
        .route("/healthz", refusing(get(health), read_only.clone()))
        .fallback(async || ApiError::NotFound)
        .with_state(ctx)
        .layer(Extension(lists::new()))
        .layer(middleware::from_fn_with_state(limits, request::handle));
    duffy_web::identify(router, None, is_trusted)
}

/// The API's description, as `/openapi.json` has it.
pub fn openapi_document() -> utoipa::openapi::OpenApi {
    endpoints().into_openapi()
}

/// Refuses methods that are not described, `HEAD` too, as in the original.
fn closed((schemas, paths, route): UtoipaMethodRouter<Ctx>) -> UtoipaMethodRouter<Ctx> {
    let described = |item: &PathItem| {
        let operations = [("GET", &item.get), ("POST", &item.post), ("PUT", &item.put)];
        operations.map(|(method, operation)| operation.as_ref().map(|_| method))
    };
    let methods: Vec<&str> = paths.paths.values().flat_map(described).flatten().collect();
    let allow = HeaderValue::try_from(methods.join(", "))
        .unwrap_or_else(|_| HeaderValue::from_static("GET"));
    let head = allow.clone();
    let route = refusing(route, allow).head(async move || ApiError::MethodNotAllowed(head));
    (schemas, paths, route)
}

fn refusing<S: Clone + Send + Sync + 'static>(
    route: MethodRouter<S>,
    allow: HeaderValue,
) -> MethodRouter<S> {
    route.fallback(async move || ApiError::MethodNotAllowed(allow))
}

/// Whether the server can do its work: 200 when the database answers.
async fn health(State(ctx): State<Ctx>) -> Result<Json<Value>, ApiError> {
    find_tenant_by_name(&ctx.db, "").await?;
    Ok(Json(json!({"status": "ok"})))
}
