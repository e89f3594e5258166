//! The client in this process.

use std::fmt;
use std::net::{Shutdown, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use russh::client::{Config, Handle, Handler, Msg};
use russh::keys::{Algorithm, HashAlg, PublicKey, PublicKeyOrCertificate};
use russh::{AlgorithmKind, Channel, ChannelMsg, Disconnect, Preferred};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::SshError;
use super::destination::{Destination, Finished};
use super::error::one_line;
use super::identities::KeyRing;
use super::login::log_in;
use super::profile::Family;
use super::script::Script;

/// How many of the last bytes of a node's error stream are kept.
const STDERR_LIMIT: usize = 8 * 1024;
/// How long a finished connection may take to close.
const CLOSE_GRACE: Duration = Duration::from_secs(5);

/// A connection to a node, after the login. Dropping it closes it.
pub(super) struct Connection {
    handle: Handle<Verifier>,
    closer: Closer,
    /// Cancelled when it is closed, by either side.
    closed: CancellationToken,
}

/// Connects to a node and logs in. A caller that drops the future closes the connection.
pub(super) async fn open(
    keys: &KeyRing,
    destination: &Destination<'_>,
) -> Result<Connection, SshError> {
    let stage = |name| {
        destination.stage.send_replace(name);
    };
    stage("connecting");
    let stream = connect(destination).await?;
    let (stream, closer) = Closer::new(stream).map_err(|error| destination.lost(error))?;

    stage("agreeing on encryption");
    let end = CancellationToken::new();
    let verifier = Verifier {
        expected: destination.host_keys.to_vec(),
        shown: Arc::default(),
        _end: end.clone().drop_guard(),
    };
    let shown = Arc::clone(&verifier.shown);
    let config = Arc::new(client_config(destination));
    let wrong_key = |reason| SshError::HostKey {
        host: destination.target.name(),
        reason,
    };
    let mut handle = russh::client::connect_stream(config, stream, verifier)
        .await
        .map_err(|error| match error {
            russh::Error::UnknownKey => {
                let shown = shown.lock().unwrap_or_else(PoisonError::into_inner);
                wrong_key(format!("its host key is {shown}"))
            }
            russh::Error::NoCommonAlgo {
                kind: AlgorithmKind::Key,
                theirs,
                ..
            } if !destination.host_keys.is_empty() => wrong_key(format!(
                "it only has host keys of other kinds ({})",
                one_line(&theirs.join(", "))
            )),
            other => destination.lost(other),
        })?;

    stage("logging in");
    let identities = keys.load(destination.identity_files());
    log_in(&mut handle, destination, identities).await?;
    Ok(Connection {
        handle,
        closer,
        closed: end,
    })
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let closed = self.closed.is_cancelled();
        f.debug_struct("Connection")
            .field("closed", &closed)
            .finish_non_exhaustive()
    }
}

impl Connection {
    /// Runs the script on the node, which may take as long as `patience` to accept it. A caller that drops the future
    /// closes the connection.
    pub(super) async fn run(
        &self,
        destination: &Destination<'_>,
        script: &Script,
        patience: Duration,
    ) -> Result<Finished, SshError> {
        destination.stage.send_replace("running the command");
        let channel = timeout(patience, self.handle.channel_open_session())
            .await
            .map_err(|_| destination.lost(format!("no answer within {patience:?}")))?
            .map_err(|error| destination.lost(error))?;
        run_script(channel, script)
            .await
            .map_err(|error| destination.lost(error))?
            .ok_or_else(|| destination.lost("it was closed before the command had ended"))
    }

    /// Waits for the node's reply to a keepalive message. False if the connection is closed.
    pub(super) async fn ping(&self) -> bool {
        self.handle.send_ping().await.is_ok() && !self.handle.is_closed()
    }

    /// Returns a token that is cancelled when either side has closed the connection.
    pub(super) fn closed(&self) -> CancellationToken {
        self.closed.clone()
    }

    /// Closes the connection. Nobody waits for the end.
    pub(super) fn close(self: Arc<Self>) {
        tokio::spawn(async move {
            let disconnecting = async {
                let goodbye = self.handle.disconnect(Disconnect::ByApplication, "", "en");
                let _ = goodbye.await;
                self.closed.cancelled().await;
            };
            let _ = timeout(CLOSE_GRACE, disconnecting).await;
            self.closer.close();
        });
    }
}

/// Tries the addresses of the host one after the other.
async fn connect(destination: &Destination<'_>) -> Result<TcpStream, SshError> {
    let profile = destination.profile;
    let host = profile
        .host_name
        .as_deref()
        .unwrap_or(&destination.target.host);
    let port = destination.target.port.unwrap_or(profile.port);
    let resolve = |reason: String| SshError::Resolve {
        host: host.to_owned(),
        reason,
    };
    let addresses: Vec<SocketAddr> = lookup_host((host, port))
        .await
        .map_err(|error| resolve(one_line(&error.to_string())))?
        .filter(|address| match profile.family {
            Family::Any => true,
            Family::V4 => address.is_ipv4(),
            Family::V6 => address.is_ipv6(),
        })
        .collect();
    let mut last = resolve("it has none of the family that ssh_config asks for".to_owned());
    for address in addresses {
        let within = destination.settings.connect_timeout;
        let reason = match timeout(within, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {within:?}"),
        };
        last = SshError::Connect {
            host: address.to_string(),
            reason,
        };
    }
    Err(last)
}

fn client_config(destination: &Destination<'_>) -> Config {
    let mut preferred = Preferred::DEFAULT;
    if !destination.host_keys.is_empty() {
        // Otherwise the node may show another one of its keys, of a kind that was not announced.
        let keys = destination.host_keys.iter();
        let announced: Vec<_> = keys.map(|key| kind_of(&key.algorithm())).collect();
        let mut kinds = preferred.key.into_owned();
        kinds.retain(|algorithm| announced.contains(&kind_of(algorithm)));
        preferred.key = kinds.into();
    }
    Config {
        preferred,
        nodelay: true,
        ..Config::default()
    }
}

/// An algorithm without the hash that goes with it.
fn kind_of(algorithm: &Algorithm) -> Algorithm {
    match algorithm {
        Algorithm::Rsa { .. } => Algorithm::Rsa { hash: None },
        other => other.clone(),
    }
}

/// Accepts any host key, or only those announced.
#[derive(Debug)]
pub(super) struct Verifier {
    expected: Vec<PublicKey>,
    /// The fingerprint of the key that was refused.
    shown: Arc<Mutex<String>>,
    /// Is dropped when the connection ends.
    _end: DropGuard,
}

impl Handler for Verifier {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        shown: &PublicKeyOrCertificate,
    ) -> Result<bool, Self::Error> {
        if self.expected.is_empty() {
            return Ok(true);
        }
        let fingerprint = match shown {
            PublicKeyOrCertificate::PublicKey { key, .. } => {
                let mut expected = self.expected.iter();
                if expected.any(|known| known.key_data() == key.key_data()) {
                    return Ok(true);
                }
                key.fingerprint(HashAlg::Sha256).to_string()
            }
            PublicKeyOrCertificate::Certificate(_) => "a certificate".to_owned(),
        };
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = fingerprint;
        Ok(false)
    }
}

/// Runs the script. `None` if the connection ends before the command does.
async fn run_script(
    channel: Channel<Msg>,
    script: &Script,
) -> Result<Option<Finished>, russh::Error> {
    channel.exec(true, script.command.as_bytes()).await?;
    let (mut replies, requests) = channel.split();
    let feeding = async {
        // If this fails, reading ends too, and its error says more.
        if !script.input.is_empty() {
            let _ = requests.data(&script.input[..]).await;
        }
        let _ = requests.eof().await;
        std::future::pending::<()>().await;
    };
    let mut stdout = Vec::new();
    let mut stderr = Vec::new();
    let reading = async {
        let mut status = None;
        while let Some(message) = replies.wait().await {
            match message {
                ChannelMsg::Data { data } => {
                    let room = script.output_limit - stdout.len();
                    stdout.extend_from_slice(&data[..room.min(data.len())]);
                }
                ChannelMsg::ExtendedData { data, ext: 1 } => {
                    stderr.extend_from_slice(&data);
                    let excess = stderr.len().saturating_sub(STDERR_LIMIT);
                    stderr.drain(..excess);
                }
                ChannelMsg::ExitStatus { exit_status } => status = Some(Ok(exit_status)),
                ChannelMsg::ExitSignal { signal_name, .. } => {
                    status = Some(Err(one_line(&format!("signal {signal_name:?}"))));
                }
                ChannelMsg::Failure => return Some(Err("its server refusing commands".to_owned())),
                _ => {}
            }
        }
        status
    };
    let status = tokio::select! {
        status = reading => status,
        () = feeding => None,
    };
    Ok(status.map(|status| Finished {
        status,
        stdout,
        stderr: String::from_utf8_lossy(&stderr).into_owned(),
    }))
}

/// A second handle on the connection, which closes it when dropped. So a caller that gives up leaves no task behind
/// that waits for the node.
#[derive(Debug)]
struct Closer(std::net::TcpStream);

impl Closer {
    fn new(stream: TcpStream) -> std::io::Result<(TcpStream, Self)> {
        stream.set_nodelay(true)?;
        let stream = stream.into_std()?;
        let closer = Self(stream.try_clone()?);
        Ok((TcpStream::from_std(stream)?, closer))
    }

    fn close(&self) {
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

impl Drop for Closer {
    fn drop(&mut self) {
        self.close();
    }
}
