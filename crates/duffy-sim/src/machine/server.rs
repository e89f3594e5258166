//! A machine's SSH server: listening, limits, faults, and ending connections for good.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use russh::{MethodKind, MethodSet, SshId};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::processes::kill_processes;
use super::session::Session;
use crate::fault::happens;
use crate::store::Record;
use crate::{Fault, Faults, SimError};

/// Connections at a time; those above it are closed at once.
const CONNECTION_LIMIT: usize = 128;
/// How long a client may take to log in.
const LOGIN_DEADLINE: Duration = Duration::from_mins(1);
/// How often a silent client is asked whether it is still there, and how often it may not answer.
const KEEPALIVE: (Duration, usize) = (Duration::from_mins(1), 3);

/// What a machine's listener, connections and commands share.
#[derive(Debug)]
pub(super) struct Shared {
    pub record: Record,
    /// Cancelled when the machine is turned off.
    pub off: CancellationToken,
    /// Connections and commands under way.
    pub tasks: TaskTracker,
    faults: Faults,
    door: Mutex<Door>,
}

/// The listening socket, apart so that a fault closes it before [`Server::set_fault`] returns.
#[derive(Debug, Default)]
struct Door {
    listener: Option<TcpListener>,
    waiting: Option<Waker>,
    fault: Option<Fault>,
}

impl Shared {
    pub fn fault(&self) -> Option<Fault> {
        self.door().fault
    }

    /// Ends the machine for good: its listener, its connections, and all that runs on it.
    pub fn die(&self) {
        if let Err(error) = self.record.mark_dead() {
            tracing::warn!(%error, "a simulated machine that dies now will come back");
        }
        // The connections first: nobody is to be told that a command was killed.
        self.off.cancel();
        self.door().listener = None;
        let directory = self.record.directory.clone();
        self.tasks
            .spawn_blocking(move || kill_processes(&[directory]));
    }

    fn door(&self) -> MutexGuard<'_, Door> {
        self.door.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn poll_accept(&self, context: &mut Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
        let mut door = self.door();
        door.waiting = Some(context.waker().clone());
        match &door.listener {
            Some(listener) => listener.poll_accept(context),
            None => Poll::Pending,
        }
    }
}

/// A machine that is turned on. Dropping it does not turn it off: see [`Server::stop`].
#[derive(Debug)]
pub(crate) struct Server {
    shared: Arc<Shared>,
    runtime: Handle,
}

impl Server {
    /// Serves on a listener that is already bound. Must be called on a Tokio runtime.
    pub fn start(
        record: Record,
        listener: std::net::TcpListener,
        faults: Faults,
    ) -> Result<Self, SimError> {
        let listener = adopt(&record, listener)?;
        let server = Self::with(record, Some(listener), faults);
        let accepting = accept_connections(Arc::clone(&server.shared));
        server.shared.tasks.spawn(accepting);
        Ok(server)
    }

    /// A machine that has died. Must be called on a Tokio runtime.
    pub fn dead(record: Record, faults: Faults) -> Self {
        let server = Self::with(record, None, faults);
        server.shared.off.cancel();
        server
    }

    fn with(record: Record, listener: Option<TcpListener>, faults: Faults) -> Self {
        Self {
            shared: Arc::new(Shared {
                record,
                off: CancellationToken::new(),
                tasks: TaskTracker::new(),
                faults,
                door: Mutex::new(Door {
                    listener,
                    ..Door::default()
                }),
            }),
            runtime: Handle::current(),
        }
    }

    pub fn record(&self) -> &Record {
        &self.shared.record
    }

    /// Sets what goes wrong from now on; when this returns, it does.
    pub fn set_fault(&self, fault: Option<Fault>) -> Result<(), SimError> {
        let mut door = self.shared.door();
        if fault == Some(Fault::Refuse) {
            door.listener = None;
        } else if door.listener.is_none() && !self.shared.off.is_cancelled() {
            let listener = self.shared.record.listen()?;
            let _runtime = self.runtime.enter();
            door.listener = Some(adopt(&self.shared.record, listener)?);
        }
        door.fault = fault;
        if let Some(waker) = door.waiting.take() {
            waker.wake();
        }
        Ok(())
    }

    /// Stops listening, cuts all connections, and waits until their commands have been killed.
    pub async fn stop(&self) {
        self.shared.off.cancel();
        self.shared.door().listener = None;
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }
}

fn adopt(record: &Record, listener: std::net::TcpListener) -> Result<TcpListener, SimError> {
    TcpListener::from_std(listener).map_err(|source| SimError::Listen {
        name: record.machine.name.clone(),
        address: record.address(),
        source,
    })
}

async fn accept_connections(shared: Arc<Shared>) {
    let config = Arc::new(server_config(&shared.record));
    let places = Arc::new(Semaphore::new(CONNECTION_LIMIT));
    loop {
        let accepted = tokio::select! {
            () = shared.off.cancelled() => return,
            accepted = std::future::poll_fn(|context| shared.poll_accept(context)) => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, most likely: the next try would fail as quickly.
                tracing::warn!(machine = %shared.record.machine.name, %error, "cannot accept a connection");
                tokio::select! {
                    () = shared.off.cancelled() => return,
                    () = tokio::time::sleep(Duration::from_millis(100)) => continue,
                }
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            tracing::debug!(machine = %shared.record.machine.name, %peer, "too many connections");
            continue;
        };
        let served = serve(Arc::clone(&shared), Arc::clone(&config), stream, peer);
        shared.tasks.spawn(async move {
            let _place = place;
            if let Err(error) = served.await {
                tracing::debug!(%peer, %error, "connection ended");
            }
        });
    }
}

fn server_config(record: &Record) -> russh::server::Config {
    russh::server::Config {
        server_id: SshId::Standard("SSH-2.0-DuffySim".into()),
        methods: MethodSet::from(&[MethodKind::PublicKey][..]),
        auth_rejection_time: Duration::from_millis(20),
        auth_rejection_time_initial: Some(Duration::ZERO),
        keys: vec![record.host_key.clone()],
        max_auth_attempts: 20,
        inactivity_timeout: None,
        keepalive_interval: Some(KEEPALIVE.0),
        keepalive_max: KEEPALIVE.1,
        nodelay: true,
        ..russh::server::Config::default()
    }
}

async fn serve(
    shared: Arc<Shared>,
    config: Arc<russh::server::Config>,
    stream: TcpStream,
    peer: SocketAddr,
) -> Result<(), russh::Error> {
    if shared.fault() == Some(Fault::Reset) {
        return Ok(stream.set_zero_linger()?);
    }
    stream.set_nodelay(true)?;
    let (stream, line) = Line::new(stream)?;
    if happens(shared.faults.ssh_failure_rate) {
        return Ok(());
    }
    let mut delay = shared.faults.ssh_delay;
    match shared.fault() {
        Some(Fault::Stall) => {
            line.hold(&shared.off, &stream).await;
            return Ok(());
        }
        Some(Fault::Delay(more)) => delay += more,
        _ => {}
    }
    if !delay.is_zero() {
        tokio::select! {
            () = shared.off.cancelled() => return Ok(()),
            () = tokio::time::sleep(delay) => {}
        }
    }

    let cut = shared.off.child_token();
    let logged_in = CancellationToken::new();
    let session = Session::new(
        Arc::clone(&shared),
        peer,
        line.local,
        cut.clone(),
        logged_in.clone(),
    );
    let hurried = async {
        tokio::select! {
            () = logged_in.cancelled() => std::future::pending().await,
            () = tokio::time::sleep(LOGIN_DEADLINE) => {}
        }
    };
    let served = async {
        russh::server::run_stream(config, stream, session)
            .await?
            .await
    };
    // However this ends, `line` is dropped here and closes the connection under russh's own task.
    tokio::select! {
        () = cut.cancelled() => Ok(()),
        () = hurried => Ok(()),
        result = served => result,
    }
}

/// A second handle on a connection, which closes it when dropped: russh's task has no other end that
/// is sure while it waits for the client.
struct Line {
    socket: std::net::TcpStream,
    local: SocketAddr,
}

impl Line {
    fn new(stream: TcpStream) -> io::Result<(TcpStream, Self)> {
        let local = stream.local_addr()?;
        let stream = stream.into_std()?;
        let socket = stream.try_clone()?;
        Ok((TcpStream::from_std(stream)?, Self { socket, local }))
    }

    /// Says nothing until the client is gone or the machine is turned off.
    async fn hold(&self, off: &CancellationToken, stream: &TcpStream) {
        let mut scrap = [0; 1024];
        let client_gone = async {
            while stream.readable().await.is_ok() {
                match stream.try_read(&mut scrap) {
                    Ok(0) => break,
                    Err(error) if error.kind() != io::ErrorKind::WouldBlock => break,
                    _ => {}
                }
            }
        };
        tokio::select! {
            () = off.cancelled() => {}
            () = client_gone => {}
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}
