//! Listens, and serves the old API's routes.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Body;
pub use duffy_listener::Limits;
use duffy_listener::RequestBody;
use tokio::net::{TcpListener, lookup_host};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::{Legacy, router};

/// Why nothing can listen there.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The host's name is unknown, or belongs to another machine.
    #[error(
        "{address} is no address of this machine; set the old API's `host` to one, 127.0.0.1 say"
    )]
    NotLocal {
        /// Host and port.
        address: String,
    },
    /// The port is in use.
    #[error(
        "{address} is taken by another program; stop it, or set another `port` for the old API"
    )]
    Taken {
        /// Host and port.
        address: String,
    },
    /// Anything else.
    #[error("the old API cannot listen on {address}: {source}")]
    Other {
        /// Host and port.
        address: String,
        /// What the system said.
        source: io::Error,
    },
}

/// Listens on a port of a host: a name or an address, IPv6 in brackets or not.
pub async fn bind(host: &str, port: u16) -> Result<TcpListener, BindError> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let address = format!("{host}:{port}");
    let Ok(found) = lookup_host((bare, port)).await else {
        return Err(BindError::NotLocal { address });
    };
    let found: Vec<SocketAddr> = found.collect();
    match TcpListener::bind(&found[..]).await {
        Ok(listener) => Ok(listener),
        Err(source) => Err(match source.kind() {
            io::ErrorKind::AddrInUse => BindError::Taken { address },
            io::ErrorKind::AddrNotAvailable => BindError::NotLocal { address },
            _ => BindError::Other { address, source },
        }),
    }
}

/// Serves the old API until told to stop; then accepts no more, lets running requests end within
/// `limits.shutdown`, and cuts off what remains.
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
    let service = router::router(Arc::clone(&legacy))
        .map_request(|request: hyper::Request<RequestBody>| request.map(Body::new));
    let told = async {
        stop.cancelled().await;
        Instant::now()
    };
    let serve = duffy_listener::serve(listener, service, limits, stop.clone());
    let (told, ()) = tokio::join!(told, serve);
    // Calls to the web API belong to no connection: what of the time is left is theirs.
    legacy.tasks().close();
    let end = legacy.tasks().wait();
    if tokio::time::timeout_at(told + limits.shutdown, end)
        .await
        .is_err()
    {
        tracing::warn!("calls to the web API did not end in time and are left");
    }
}
