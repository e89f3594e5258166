//! The old API in this process: checked before anything is touched, then bound, then served.

use std::sync::Arc;

use duffy_config::{Config, Metaclient};
use duffy_legacy::{Legacy, Limits, Times};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::failure::Failure;
use crate::open_files;
use crate::permissions;

/// What the command line says otherwise than the configuration.
#[derive(Debug, Default, Clone)]
pub struct Overrides {
    pub host: Option<String>,
    pub port: Option<u16>,
    pub dest: Option<String>,
}

/// Settings that have been found good.
#[derive(Debug)]
pub struct Checked {
    settings: Metaclient,
}

/// The old API, listening.
#[derive(Debug)]
pub struct Listening {
    settings: Metaclient,
    listener: TcpListener,
}

impl Checked {
    /// Checks the configuration's `metaclient` section.
    pub fn new(config: &Config, overrides: Overrides) -> Result<Self, Failure> {
        let Some(mut settings) = config.metaclient.clone() else {
            return Err(Failure::new(
                "the configuration has no `metaclient` section, which says whose keys are good \
                 and which pools are meant: add one (see etc/duffy-example-config.yaml)",
            ));
        };
        permissions::check(&settings, |warning| tracing::warn!("{warning}"))?;
        settings.host = overrides.host.unwrap_or(settings.host);
        settings.port = overrides.port.unwrap_or(settings.port);
        settings.dest = overrides.dest.or(settings.dest);
        Ok(Self { settings })
    }

    /// Listens.
    pub async fn bind(self) -> Result<Listening, Failure> {
        let settings = self.settings;
        let listener = duffy_legacy::bind(&settings.host, settings.port)
            .await
            .map_err(|error| Failure(format!("the old API cannot start: {error}")))?;
        Ok(Listening { settings, listener })
    }
}

impl Listening {
    /// Gets ready to serve until `stop`, or `at_once`. `own` is a web API in this process, which
    /// is asked unless the configuration names another.
    pub fn serve(
        self,
        own: Option<std::net::SocketAddr>,
        stop: CancellationToken,
        at_once: CancellationToken,
    ) -> Result<impl Future<Output = ()> + Send + 'static, Failure> {
        let own = own.map(|address| format!("http://{}", reachable(address)));
        let dest = self.settings.dest.clone().or(own);
        let dest = dest.unwrap_or_else(|| Metaclient::DEFAULT_DEST.to_owned());
        let local = self.listener.local_addr().map_err(Failure::new)?;
        let legacy: Arc<Legacy> =
            Legacy::new(self.settings, &dest, Times::default()).map_err(Failure::new)?;
        tracing::info!(%local, docs = format!("http://{local}/docs"), dest, "serving the old API");
        let limits = Limits::default();
        open_files::raise_limit(limits.connections);
        let serve = duffy_legacy::serve(self.listener, legacy, limits, stop);
        Ok(async move {
            at_once.run_until_cancelled_owned(serve).await;
        })
    }
}

/// Where to reach what listens there: on "all addresses" the loopback one.
fn reachable(mut address: std::net::SocketAddr) -> std::net::SocketAddr {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}
