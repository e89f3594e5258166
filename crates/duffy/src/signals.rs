//! Signals: the first SIGTERM or SIGINT lets running work end, the second one stops at once. A service
//! ignores SIGHUP; what runs in somebody's terminal ends with it.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::failure::Failure;

/// The signals, caught from when this is made.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Option<Signal>,
}

impl Signals {
    /// Catches them. SIGHUP is ignored, or left as it is: the end of what runs in a terminal, unless `nohup` started it.
    /// Needs a runtime.
    pub fn new(ignores_hangup: bool) -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind).map_err(|error| Failure(format!("cannot listen for signals: {error}")))
        };
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: if ignores_hangup {
                Some(listen(SignalKind::hangup())?)
            } else {
                None
            },
        })
    }

    /// Passes them on.
    pub async fn watch(mut self, stop: CancellationToken, at_once: CancellationToken) {
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

/// Returns when SIGHUP comes and is ignored.
async fn hang_up(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}
