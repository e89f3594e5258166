//! `duffy run`, `duffy serve`, `duffy worker`: the web API, a worker, the old API, or several in one process.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use duffy_config::Config;
use duffy_server::context::{Context, Ctx};
use duffy_server::http::{self, Limits};
use duffy_server::lifecycle::probes;
use duffy_server::worker::{self, Mechanisms};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::legacy::OldApi;
use crate::args::servers::{ListenArgs, RunArgs, ServeArgs};
use crate::args::worker::WorkerArgs;
use crate::failure::Failure;
use crate::runtime::{self, Signals};

/// `duffy run`: runs all parts until a signal ends it.
pub fn run(args: RunArgs, config: Arc<Config>) -> Result<(), Failure> {
    let parts = Parts {
        app: Some(listen_at(args.listen, &config)),
        worker: Some(concurrency(args.concurrency, &config)),
        old_api: true,
        ..Parts::default()
    };
    start(config, &parts, |_, _| async {})
}

/// `duffy serve`: serves the web API until a signal ends it.
pub fn serve(args: ServeArgs, config: Arc<Config>) -> Result<(), Failure> {
    let parts = Parts {
        app: Some(listen_at(args.listen, &config)),
        ..Parts::default()
    };
    start(config, &parts, |_, _| async {})
}

/// `duffy worker`: works until a signal ends it.
pub fn work(args: &WorkerArgs, config: Arc<Config>) -> Result<(), Failure> {
    let ignored = &args.ignored.0;
    if !ignored.is_empty() {
        tracing::warn!(
            options = ignored.join(" "),
            "ignoring options of Celery's worker"
        );
    }
    let parts = Parts {
        worker: Some(concurrency(args.concurrency.flatten(), &config)),
        ..Parts::default()
    };
    start(config, &parts, |_, _| async {})
}

/// Returns where to listen: the arguments override the configuration.
fn listen_at(args: ListenArgs, config: &Config) -> (String, u16) {
    let app = config.app.clone().unwrap_or_default();
    (args.host.unwrap_or(app.host), args.port.unwrap_or(app.port))
}

/// Returns how many nodes to work on in parallel: the argument overrides the configuration.
fn concurrency(argument: Option<u32>, config: &Config) -> usize {
    let argument = argument.and_then(|nodes| usize::try_from(nodes).ok());
    argument.unwrap_or(config.tasks.concurrency)
}

/// What runs in this process.
#[derive(Debug, Default)]
pub struct Parts {
    /// The web API, at this host and port.
    pub app: Option<(String, u16)>,
    /// A worker that works on this number of nodes or batches in parallel.
    pub worker: Option<usize>,
    /// The old API, if it is configured.
    pub old_api: bool,
    /// SIGHUP ends it. A service ignores SIGHUP.
    pub in_terminal: bool,
}

/// How long running requests have to end after the signal to stop.
const DRAIN: Duration = Duration::from_mins(1);

/// How long it may take to undo requests that did not end.
const UNDO: Duration = Duration::from_secs(5);

/// Runs these parts until SIGTERM or SIGINT; a second signal stops running work. Once all parts run, calls `started` with the
/// address of the web API, if that is one of them.
pub fn start<F: Future<Output = ()> + Send + 'static>(
    config: Arc<Config>,
    parts: &Parts,
    started: impl FnOnce(Ctx, Option<SocketAddr>) -> F,
) -> Result<(), Failure> {
    runtime::run(async {
        let signals = Signals::new(!parts.in_terminal)?;
        runtime::raise_limit(0);
        let ctx = Context::open(config).await?;

        // Everything that can fail does so before anything is changed.
        let listener = match &parts.app {
            Some((host, port)) => Some(http::bind(host, *port).await?),
            None => None,
        };
        let address = listener.as_ref().map(TcpListener::local_addr);
        let address = address.transpose().map_err(|error| {
            Failure::new(format_args!(
                "cannot find out the address listened on: {error}"
            ))
        })?;
        let old_api = match ctx.config.metaclient.clone() {
            Some(settings) if parts.old_api => Some(OldApi::open(settings, address).await?),
            _ => None,
        };
        let mechanisms = match parts.worker {
            Some(concurrency) => Some((Mechanisms::open(&ctx.config).await?, concurrency)),
            None => None,
        };

        let (stop, at_once) = (ctx.stop.clone(), CancellationToken::new());
        let mut running = JoinSet::new();
        // The web API continues as long as the old API, which calls it, has requests to end.
        let app_stop = match old_api {
            Some(_) => CancellationToken::new(),
            None => stop.clone(),
        };
        if let (Some(listener), Some(address)) = (listener, address) {
            tracing::info!(%address, docs = format!("http://{address}/docs"), "serving the web API");
            running.spawn(serve_app(
                ctx.clone(),
                listener,
                app_stop.clone(),
                at_once.clone(),
            ));
        }
        if let Some(old_api) = old_api {
            let serve = old_api.serve(stop.clone(), at_once.clone());
            let ended = app_stop.drop_guard();
            running.spawn(async move {
                let _ended = ended;
                serve.await;
            });
        }
        if let Some((mechanisms, concurrency)) = mechanisms {
            running.spawn(worker::run(
                ctx.clone(),
                mechanisms,
                concurrency,
                at_once.clone(),
            ));
        }
        let started = started(ctx.clone(), address);
        tokio::spawn(stop.clone().run_until_cancelled_owned(started));
        let result = runtime::wait(running, signals, stop, at_once).await;
        ctx.db.close().await;
        result
    })
}

/// Serves the web API on a listener until `stop`.
async fn serve_app(
    ctx: Ctx,
    listener: TcpListener,
    stop: CancellationToken,
    at_once: CancellationToken,
) {
    let app = ctx.config.app.clone().unwrap_or_default();
    let hold = &ctx.config.ssh.hold;
    let connections = if hold.enabled {
        hold.max_connections
    } else {
        0
    };
    // A held connection has two descriptors.
    runtime::raise_limit(app.max_connections.saturating_add(2 * connections as usize));
    ctx.tasks.spawn(probes::run(ctx.clone()));
    let limits = Limits {
        connections: app.max_connections,
        header_read: app.header_timeout,
        shutdown: DRAIN,
        ..Limits::default()
    };
    let serve = http::serve(listener, http::router::router(ctx.clone()), limits, stop);
    let drained = async {
        ctx.stop.cancelled().await;
        tokio::time::sleep(DRAIN).await;
    };
    let ended = async {
        serve.await;
        // Sessions being granted belong to the server, not to a connection. They have the rest of the time.
        ctx.tasks.close();
        ctx.tasks.wait().await;
    };
    tokio::select! {
        () = ended => return,
        () = drained => {}
        () = at_once.cancelled() => {}
    }
    ctx.tasks.close();
    // The remaining requests are undone, and their nodes released.
    ctx.halt.cancel();
    if tokio::time::timeout(UNDO, ctx.tasks.wait()).await.is_err() {
        tracing::warn!("requests could not be undone; their leases will lapse");
    }
}
