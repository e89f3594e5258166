//! Stands in for `legacy.rs` in a build without the feature `legacy`, and serves nothing.

use std::future::{Ready, ready};
use std::net::SocketAddr;

use duffy_config::Metaclient;
use tokio_util::sync::CancellationToken;

use crate::failure::Failure;

/// The old API, which is not served.
#[derive(Debug)]
pub struct OldApi;

impl OldApi {
    /// Warns that the old API is not served.
    pub fn open(_: Metaclient, _: Option<SocketAddr>) -> Ready<Result<Self, Failure>> {
        tracing::warn!("this build lacks the feature `legacy`: the old API is not served");
        ready(Ok(Self))
    }

    /// Waits for `stop`.
    #[expect(clippy::unused_self, reason = "the signature is that in legacy.rs")]
    pub fn serve(
        self,
        stop: CancellationToken,
        _: CancellationToken,
    ) -> impl Future<Output = ()> + Send + 'static {
        stop.cancelled_owned()
    }
}
