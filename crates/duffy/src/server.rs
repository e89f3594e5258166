//! Running the servers: web API, worker, old API, or all in one process, until a signal ends them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use duffy_config::Config;
use duffy_server::context::{Context, Ctx};
use duffy_server::http::{self, Limits};
use duffy_server::worker::{self, Mechanisms};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::failure::Failure;
#[cfg(feature = "legacy")]
use crate::legacy::{Checked, Overrides};
use crate::open_files;
use crate::signals::Signals;

/// What runs in this process.
#[derive(Debug, Clone)]
pub struct Parts {
    /// The web API, at this host and port.
    pub app: Option<(String, u16)>,
    /// A worker that works on so many nodes or batches at once.
    pub worker: Option<usize>,
    /// The old API, with what the command line says of it.
    #[cfg(feature = "legacy")]
    pub legacy: Option<Overrides>,
    /// Whether SIGHUP changes nothing, as for a service.
    pub ignores_hangup: bool,
}

impl Parts {
    /// The web API alone.
    pub fn app(host: String, port: u16) -> Self {
        Self {
            app: Some((host, port)),
            worker: None,
            #[cfg(feature = "legacy")]
            legacy: None,
            ignores_hangup: true,
        }
    }

    /// A worker alone.
    pub fn worker(concurrency: usize) -> Self {
        Self {
            app: None,
            worker: Some(concurrency),
            #[cfg(feature = "legacy")]
            legacy: None,
            ignores_hangup: true,
        }
    }
}

/// How long requests may take to end after the order to stop.
const DRAIN: Duration = Duration::from_mins(1);

/// How long it may take to undo what did not end.
const UNDO: Duration = Duration::from_secs(5);

/// Runs these parts until SIGTERM or SIGINT; a second one stops what is still at work.
/// `started` is called once all of them run, with the address of the web API if it is among
/// them.
pub fn run<S, F>(config: Arc<Config>, parts: Parts, started: S) -> Result<(), Failure>
where
    S: FnOnce(Ctx, Option<SocketAddr>) -> F + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure(format!("cannot start threads: {error}")))?;
    let result = runtime.block_on(run_parts(config, parts, started));
    // Look-ups of names may still block a thread.
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

async fn run_parts<S, F>(config: Arc<Config>, parts: Parts, started: S) -> Result<(), Failure>
where
    S: FnOnce(Ctx, Option<SocketAddr>) -> F + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let signals = Signals::new(parts.ignores_hangup)?;
    open_files::raise_limit(0);
    let ctx = Context::open(config).await.map_err(Failure::new)?;
    let at_once = CancellationToken::new();
    let mut running = JoinSet::new();

    // All that can be refused is, before anything is touched.
    let listener = match &parts.app {
        Some((host, port)) => Some(http::bind(host, *port).await.map_err(Failure::new)?),
        None => None,
    };
    #[cfg(feature = "legacy")]
    let legacy = match parts.legacy {
        Some(overrides) => Some(Checked::new(&ctx.config, overrides)?.bind().await?),
        None => None,
    };
    let mechanisms = match parts.worker {
        Some(concurrency) => {
            let mechanisms = Mechanisms::open(&ctx.config).await.map_err(Failure::new)?;
            Some((mechanisms, concurrency))
        }
        None => None,
    };

    // The web API goes on for as long as the old API, which asks it, has requests to end.
    #[cfg(feature = "legacy")]
    let app_stop = match legacy {
        Some(_) => CancellationToken::new(),
        None => ctx.stop.clone(),
    };
    #[cfg(not(feature = "legacy"))]
    let app_stop = ctx.stop.clone();
    let address = match listener {
        Some(listener) => {
            let stop = app_stop.clone();
            Some(start_app(&ctx, listener, stop, &at_once, &mut running)?)
        }
        None => None,
    };
    #[cfg(feature = "legacy")]
    if let Some(legacy) = legacy {
        let serve = legacy.serve(address, ctx.stop.clone(), at_once.clone())?;
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

    let announce = tokio::spawn(
        ctx.stop
            .clone()
            .run_until_cancelled_owned(started(ctx.clone(), address)),
    );
    let stopping = tokio::spawn(signals.watch(ctx.stop.clone(), at_once.clone()));
    let mut failure = None;
    while let Some(ended) = running.join_next().await {
        if let Err(error) = ended {
            failure = Some(Failure(format!("a part of the server died: {error}")));
        }
        // One part without the other is no server.
        ctx.stop.cancel();
    }
    stopping.abort();
    announce.abort();
    ctx.db.close().await;
    failure.map_or(Ok(()), Err)
}

/// Serves the web API on a listener, whose address is returned.
fn start_app(
    ctx: &Ctx,
    listener: tokio::net::TcpListener,
    stop: CancellationToken,
    at_once: &CancellationToken,
    running: &mut JoinSet<()>,
) -> Result<SocketAddr, Failure> {
    let address = listener
        .local_addr()
        .map_err(|error| Failure(format!("cannot tell the address listened on: {error}")))?;
    tracing::info!(%address, docs = format!("http://{address}/docs"), "serving the web API");
    let app = ctx.config.app.clone().unwrap_or_default();
    open_files::raise_limit(app.max_connections);
    let limits = Limits {
        connections: app.max_connections,
        header_read: app.header_timeout,
        shutdown: DRAIN,
        ..Limits::default()
    };
    let (ctx, at_once) = (ctx.clone(), at_once.clone());
    running.spawn(async move {
        let router = http::router::router(ctx.clone());
        let serve = http::serve(listener, router, limits, stop);
        let drained = async {
            ctx.stop.cancelled().await;
            tokio::time::sleep(DRAIN).await;
        };
        let ended = async {
            serve.await;
            // Sessions being granted belong to the server, not to a connection: what of the
            // time is left is theirs.
            ctx.tasks.close();
            ctx.tasks.wait().await;
        };
        tokio::select! {
            () = ended => return,
            () = drained => {}
            () = at_once.cancelled() => {}
        }
        ctx.tasks.close();
        // What is left is undone, and its nodes handed back.
        ctx.halt.cancel();
        if tokio::time::timeout(UNDO, ctx.tasks.wait()).await.is_err() {
            tracing::warn!("requests could not be undone; their leases will lapse");
        }
    });
    Ok(address)
}
