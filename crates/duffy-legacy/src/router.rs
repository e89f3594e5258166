//! Every route, on one page.

use std::sync::Arc;

use axum::routing::{MethodRouter, get};
use axum::{Router, middleware};
use duffy_web::docs::PAGES;
use duffy_web::redirect_slashes;

use crate::reply::LegacyError;
use crate::{Legacy, docs, endpoints, request};

/// Returns the old API: endpoints, documentation and health.
pub fn router(legacy: Arc<Legacy>) -> Router {
    let mut router = Router::new();
    let mut paths = PAGES.to_vec();
    let endpoints: [(&str, MethodRouter<Arc<Legacy>>); 4] = [
        ("/Node/get", get(endpoints::get_nodes)),
        ("/Node/done", get(endpoints::return_nodes)),
        ("/Node/fail", get(endpoints::extend_nodes)),
        ("/Inventory", get(endpoints::list_nodes)),
    ];
    for (path, endpoint) in endpoints {
        // Refuses HEAD too, because axum runs the handler for it, and that takes nodes.
        let endpoint = endpoint.head(refuse).fallback(refuse);
        paths.push(path);
        router = router.route(path, endpoint);
    }
    let router = redirect_slashes(router, paths)
        .merge(docs::routes())
        .route("/healthz", get(endpoints::health).fallback(refuse))
        .fallback(async || LegacyError::NotFound)
        .with_state(Arc::clone(&legacy))
        .layer(middleware::from_fn(request::handle));
    duffy_web::identify(router, Some("legacy"), move |address| {
        legacy.settings.trusted_proxies.contains(address)
    })
}

async fn refuse() -> LegacyError {
    LegacyError::Method
}
