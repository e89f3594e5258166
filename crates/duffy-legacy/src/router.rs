//! Every route, on one page.

use std::sync::Arc;

use axum::http::header::LOCATION;
use axum::http::{HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, any, get};
use axum::{Router, middleware};

use crate::reply::Refused;
use crate::{Legacy, docs, endpoints, request};

/// The old API: endpoints, documentation and health.
pub fn router(legacy: Arc<Legacy>) -> Router {
    let mut router = Router::new();
    let endpoints: [(&str, MethodRouter<Arc<Legacy>>); 4] = [
        ("/Node/get", get(endpoints::get_nodes)),
        ("/Node/done", get(endpoints::return_nodes)),
        ("/Node/fail", get(endpoints::extend_nodes)),
        ("/Inventory", get(endpoints::list_nodes)),
    ];
    for (path, endpoint) in endpoints {
        // Also not HEAD: a look would take nodes.
        let endpoint = endpoint.head(refuse).fallback(refuse);
        router = router
            .route(path, endpoint)
            .route(&format!("{path}/"), any(without_slash));
    }
    for path in docs::PAGES {
        router = router.route(&format!("{path}/"), any(without_slash));
    }
    router
        .merge(docs::routes())
        .route("/healthz", get(endpoints::health).fallback(refuse))
        .fallback(async || Refused::NotFound)
        .with_state(Arc::clone(&legacy))
        .layer(middleware::from_fn_with_state(legacy, request::handle))
}

async fn refuse() -> Refused {
    Refused::Method
}

/// Leads from a path with a slash at the end to the one without.
async fn without_slash(uri: Uri) -> Response {
    let path = uri.path().trim_end_matches('/');
    let query = uri.query().map(|query| format!("?{query}"));
    let location = format!("{path}{}", query.unwrap_or_default());
    match HeaderValue::try_from(location) {
        Ok(location) => (StatusCode::TEMPORARY_REDIRECT, [(LOCATION, location)]).into_response(),
        Err(_) => Refused::NotFound.into_response(),
    }
}
