//! `duffy serve-legacy`, and the old API as a part of `duffy run`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use duffy_config::{Config, Metaclient};
use duffy_legacy::{Legacy, Limits, Times};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::args::servers::ServeLegacyArgs;
use crate::failure::Failure;
use crate::permissions;
use crate::runtime::{self, Signals};

/// Serves until a signal ends it.
pub fn run(args: ServeLegacyArgs, config: &Config) -> Result<(), Failure> {
    let Some(mut settings) = config.metaclient.clone() else {
        return Err(Failure::new(
            "the configuration has no `metaclient` section, which has the keys of clients and the \
             names of pools: add one (see etc/duffy-example-config.yaml)",
        ));
    };
    settings.host = args.host.unwrap_or(settings.host);
    settings.port = args.port.unwrap_or(settings.port);
    settings.dest = args.dest.or(settings.dest);
    runtime::run(async {
        let signals = Signals::new(true)?;
        let old_api = OldApi::open(settings, None).await?;
        let (stop, at_once) = (CancellationToken::new(), CancellationToken::new());
        let mut parts = JoinSet::new();
        parts.spawn(old_api.serve(stop.clone(), at_once.clone()));
        runtime::wait(parts, signals, stop, at_once).await
    })
}

/// The old API, ready to serve.
#[derive(Debug)]
pub struct OldApi {
    listener: TcpListener,
    address: SocketAddr,
    dest: String,
    legacy: Arc<Legacy>,
}

impl OldApi {
    /// Checks the settings and listens. `web_api` is the address of a web API in this process, which is called unless the
    /// settings name another.
    pub async fn open(settings: Metaclient, web_api: Option<SocketAddr>) -> Result<Self, Failure> {
        permissions::check(&settings, |warning| tracing::warn!("{warning}"))?;
        let listener = duffy_legacy::bind(&settings.host, settings.port)
            .await
            .map_err(|error| Failure::new(format_args!("the old API cannot start: {error}")))?;
        let web_api = web_api.map(|address| format!("http://{}", reachable(address)));
        let dest = settings.dest.clone().or(web_api);
        let dest = dest.unwrap_or_else(|| Metaclient::DEFAULT_DEST.to_owned());
        Ok(Self {
            address: listener.local_addr()?,
            listener,
            legacy: Legacy::new(settings, &dest, Times::default())?,
            dest,
        })
    }

    /// Serves until `stop`, or `at_once`.
    pub fn serve(
        self,
        stop: CancellationToken,
        at_once: CancellationToken,
    ) -> impl Future<Output = ()> + Send + 'static {
        let (local, dest) = (self.address, self.dest);
        tracing::info!(%local, docs = format!("http://{local}/docs"), dest, "serving the old API");
        let limits = Limits::default();
        runtime::raise_limit(limits.connections);
        let serve = duffy_legacy::serve(self.listener, self.legacy, limits, stop);
        async move {
            at_once.run_until_cancelled_owned(serve).await;
        }
    }
}

/// Returns an address at which a listener can be reached: the loopback address, if it listens on all.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}
