//! What the servers share: threads, signals, and waiting for the parts of a server.
//!
//! The first SIGTERM or SIGINT lets running work end, the second one stops at once. A service ignores SIGHUP. A server in a
//! terminal ends with it.

mod open_files;

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::failure::Failure;

pub use open_files::raise_limit;

/// Runs a server on several threads.
pub fn run(server: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format_args!("cannot start threads: {error}")))?;
    let result = runtime.block_on(server);
    // Look-ups of names and calls to the web API may still block threads.
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

/// The signals. They are caught from when this is created, and handled by `watch`.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Option<Signal>,
}

impl Signals {
    /// Catches the signals. SIGHUP is ignored, or keeps its default action: it ends a server in a terminal, unless `nohup`
    /// started that. Needs a runtime.
    pub fn new(ignores_hangup: bool) -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind)
                .map_err(|error| Failure::new(format_args!("cannot listen for signals: {error}")))
        };
        let hangup = ignores_hangup.then(|| listen(SignalKind::hangup()));
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: hangup.transpose()?,
        })
    }

    /// Cancels `stop` on the first signal and `at_once` on the second.
    async fn watch(mut self, stop: CancellationToken, at_once: CancellationToken) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => {}
                _ = self.interrupt.recv() => {}
                () = hang_up(&mut self.hangup) => {
                    tracing::warn!("SIGHUP is ignored: restart to read the configuration again");
                    continue;
                }
            }
            if stop.is_cancelled() {
                tracing::info!("stopping at once");
                at_once.cancel();
                return;
            }
            tracing::info!("stopping; a second signal stops at once");
            stop.cancel();
        }
    }
}

/// Returns when an ignored SIGHUP arrives.
async fn hang_up(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}

/// Waits until all parts of a server have ended. When one ends or a signal arrives, `stop` tells the others to end; a second
/// signal cancels `at_once`.
pub async fn wait(
    mut parts: JoinSet<()>,
    signals: Signals,
    stop: CancellationToken,
    at_once: CancellationToken,
) -> Result<(), Failure> {
    let watching = tokio::spawn(signals.watch(stop.clone(), at_once));
    let mut result = Ok(());
    while let Some(ended) = parts.join_next().await {
        if let Err(error) = ended {
            let message = format_args!("a part of the server died: {error}");
            result = Err(Failure::new(message));
        }
        // A server does not run with only some of its parts.
        stop.cancel();
    }
    watching.abort();
    result
}
