//! A machine's SSH server: accepts connections within limits, applies faults, and closes connections reliably.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use russh::{MethodKind, MethodSet, SshId};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::connection::Connection;
use super::state::MachineState;
use crate::fault::happens;
use crate::store::Record;
use crate::{Fault, Faults};

/// Limit of open connections; further ones are closed at once.
const CONNECTION_LIMIT: usize = 128;
/// How long a client may take to log in.
const LOGIN_TIMEOUT: Duration = Duration::from_mins(1);
/// Interval of keepalive requests to a silent client, and how many it may leave unanswered.
const KEEPALIVE: (Duration, usize) = (Duration::from_mins(1), 3);
/// Pause after an error of the listener.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Turns a machine on: serves on a bound socket. Must be called on a Tokio runtime.
pub(crate) fn start(record: Record, socket: TcpListener, faults: Faults) -> Arc<MachineState> {
    let machine = MachineState::new(record, Some(socket), faults);
    let accepting = accept_connections(Arc::clone(&machine));
    machine.tasks.spawn(accepting);
    machine
}

async fn accept_connections(machine: Arc<MachineState>) {
    let config = Arc::new(server_config(&machine.record));
    let permits = Arc::new(Semaphore::new(CONNECTION_LIMIT));
    let name = &machine.record.machine.name;
    loop {
        let accepting = std::future::poll_fn(|context| machine.poll_accept(context));
        let Some(accepted) = machine.off.run_until_cancelled(accepting).await else {
            return;
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Probably out of file descriptors: the next attempt would fail as quickly.
                tracing::warn!(machine = %name, %error, "cannot accept a connection");
                machine.off.run_until_cancelled(sleep(ACCEPT_PAUSE)).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else {
            tracing::debug!(machine = %name, %peer, "too many connections");
            continue;
        };
        let served = serve(Arc::clone(&machine), Arc::clone(&config), stream, peer);
        machine.tasks.spawn(async move {
            let _permit = permit;
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
    machine: Arc<MachineState>,
    config: Arc<russh::server::Config>,
    stream: TcpStream,
    peer: SocketAddr,
) -> Result<(), russh::Error> {
    if machine.fault() == Some(Fault::Reset) {
        return Ok(stream.set_zero_linger()?);
    }
    stream.set_nodelay(true)?;
    let local = stream.local_addr()?;
    let (stream, _closer) = Closer::new(stream)?;
    if happens(machine.faults.ssh_failure_rate) {
        return Ok(());
    }
    if machine.fault() == Some(Fault::Stall) {
        machine.off.run_until_cancelled(stall(&stream)).await;
        return Ok(());
    }

    let cut = machine.off.child_token();
    let logged_in = CancellationToken::new();
    let connection = Connection::new(machine, peer, local, cut.clone(), logged_in.clone());
    let login_timeout = async {
        if timeout(LOGIN_TIMEOUT, logged_in.cancelled()).await.is_ok() {
            std::future::pending::<()>().await;
        }
    };
    let served = async {
        russh::server::run_stream(config, stream, connection)
            .await?
            .await
    };
    // However this ends, `_closer` is dropped here and closes the connection of russh's own task.
    tokio::select! {
        () = cut.cancelled() => Ok(()),
        () = login_timeout => Ok(()),
        result = served => result,
    }
}

/// Sends nothing until the client is gone.
async fn stall(stream: &TcpStream) {
    let mut discarded = [0; 1024];
    while stream.readable().await.is_ok() {
        match stream.try_read(&mut discarded) {
            Ok(0) => return,
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return,
            _ => {}
        }
    }
}

/// A second handle of a connection, which closes it when dropped: nothing else reliably ends russh's task while it waits
/// for the client.
struct Closer(std::net::TcpStream);

impl Closer {
    fn new(stream: TcpStream) -> io::Result<(TcpStream, Self)> {
        let stream = stream.into_std()?;
        let closer = Self(stream.try_clone()?);
        Ok((TcpStream::from_std(stream)?, closer))
    }
}

impl Drop for Closer {
    fn drop(&mut self) {
        let _ = self.0.shutdown(Shutdown::Both);
    }
}
