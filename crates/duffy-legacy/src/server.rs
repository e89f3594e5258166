//! Serves the old API's routes.

use std::sync::Arc;

use duffy_web::Limits;
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{Legacy, router};

/// Serves the old API until `stop`. Then it accepts no more connections, lets running requests end within `limits.shutdown`, and
/// cuts off the rest.
pub async fn serve(
    listener: TcpListener,
    legacy: Arc<Legacy>,
    limits: Limits,
    stop: CancellationToken,
) {
    // Clients of the old API speak HTTP/1 only.
    let limits = Limits {
        http2: false,
        ..limits
    };
    let router = router::router(Arc::clone(&legacy));
    let stopped = async {
        stop.cancelled().await;
        Instant::now()
    };
    let serve = duffy_web::serve(listener, router, limits, stop.clone());
    let (stopped_at, ()) = tokio::join!(stopped, serve);
    // Calls to the web API do not belong to a connection. They have the rest of the time.
    let calls = &legacy.upstream.tasks;
    calls.close();
    let deadline = stopped_at + limits.shutdown;
    if tokio::time::timeout_at(deadline, calls.wait())
        .await
        .is_err()
    {
        tracing::warn!("calls to the web API did not end in time and are abandoned");
    }
}
