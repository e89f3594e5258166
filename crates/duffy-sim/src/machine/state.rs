//! What a machine's listener, connections and commands share.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::processes::kill_processes;
use crate::store::Record;
use crate::{Fault, Faults, SimError};

/// A machine that is turned on or has died. Dropping it does not turn it off: see [`MachineState::stop`].
#[derive(Debug)]
pub(crate) struct MachineState {
    pub record: Record,
    /// Cancelled when the machine is turned off.
    pub(super) off: CancellationToken,
    /// Open connections and running commands.
    pub(super) tasks: TaskTracker,
    pub(super) faults: Faults,
    listener: Mutex<Listener>,
    runtime: Handle,
}

/// The listening socket. A fault closes it before [`MachineState::set_fault`] returns.
#[derive(Debug)]
struct Listener {
    socket: Option<TcpListener>,
    accepting: Option<Waker>,
    fault: Option<Fault>,
}

impl MachineState {
    /// The state of a machine with this socket, or of a machine that has died. Must be called on a Tokio runtime.
    pub fn new(record: Record, socket: Option<TcpListener>, faults: Faults) -> Arc<Self> {
        let off = CancellationToken::new();
        if socket.is_none() {
            off.cancel();
        }
        Arc::new(Self {
            record,
            off,
            tasks: TaskTracker::new(),
            faults,
            listener: Mutex::new(Listener {
                socket,
                accepting: None,
                fault: None,
            }),
            runtime: Handle::current(),
        })
    }

    pub(super) fn fault(&self) -> Option<Fault> {
        self.listener().fault
    }

    /// Sets the fault from now on. It has taken effect when this returns.
    pub fn set_fault(&self, fault: Option<Fault>) -> Result<(), SimError> {
        let mut listener = self.listener();
        if fault == Some(Fault::Refuse) {
            listener.socket = None;
        } else if listener.socket.is_none() && !self.off.is_cancelled() {
            let _runtime = self.runtime.enter();
            listener.socket = Some(self.record.listen()?);
        }
        listener.fault = fault;
        if let Some(waker) = listener.accepting.take() {
            waker.wake();
        }
        Ok(())
    }

    /// Ends the machine permanently: its listener, its connections, and all its processes.
    pub(super) fn die(&self) {
        if let Err(error) = self.record.mark_dead() {
            tracing::warn!(%error, "a simulated machine that dies now will come back");
        }
        // The connections end first, so that no client learns that a command was killed.
        self.turn_off();
        let directory = self.record.directory.clone();
        self.tasks
            .spawn_blocking(move || kill_processes(&[directory]));
    }

    /// Stops listening, closes all connections, and waits until their commands have been killed.
    pub async fn stop(&self) {
        self.turn_off();
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn turn_off(&self) {
        self.off.cancel();
        self.listener().socket = None;
    }

    pub(super) fn poll_accept(
        &self,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
        let mut listener = self.listener();
        listener.accepting = Some(context.waker().clone());
        match &listener.socket {
            Some(socket) => socket.poll_accept(context),
            None => Poll::Pending,
        }
    }

    fn listener(&self) -> MutexGuard<'_, Listener> {
        self.listener.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
