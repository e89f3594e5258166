//! Serves the web API's routes on a listener.

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
pub use duffy_listener::Limits;
use duffy_listener::{Peer, RequestBody};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

/// Serves until told to stop; then accepts no more, lets running requests end within
/// `limits.shutdown`, and cuts off what remains.
pub async fn serve(listener: TcpListener, router: Router, limits: Limits, stop: CancellationToken) {
    let service = router.map_request(|request: hyper::Request<RequestBody>| {
        let mut request: Request = request.map(Body::new);
        if let Some(Peer(address)) = request.extensions_mut().remove() {
            request.extensions_mut().insert(ConnectInfo(address));
        }
        request
    });
    duffy_listener::serve(listener, service, limits, stop).await;
}
