//! Redirects from paths with a slash at the end.

use axum::Router;
use axum::http::Uri;
use axum::response::Redirect;
use axum::routing::any;

/// Adds redirects from these paths with a slash at the end to the paths without it.
pub fn redirect_slashes<'p, S: Clone + Send + Sync + 'static>(
    router: Router<S>,
    paths: impl IntoIterator<Item = &'p str>,
) -> Router<S> {
    paths.into_iter().fold(router, |router, path| {
        router.route(&format!("{path}/"), any(without_slash))
    })
}

async fn without_slash(uri: Uri) -> Redirect {
    let path = uri.path().trim_end_matches('/');
    let query = uri.query().map(|query| format!("?{query}"));
    let location = format!("{path}{}", query.unwrap_or_default());
    Redirect::temporary(&location)
}
