//! The client in this process.

use std::net::{Shutdown, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use russh::client::{Config, Handle, Handler};
use russh::keys::{Algorithm, HashAlg, PublicKey, PublicKeyOrCertificate};
use russh::{AlgorithmKind, ChannelMsg, Disconnect, Preferred};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use super::error::one_line;
use super::identities::KeyRing;
use super::login::log_in;
use super::profile::Family;
use super::script::Script;
use super::{Destination, SshError};

/// What a node says on its error stream is kept up to this many bytes.
const STDERR_LIMIT: usize = 8 * 1024;
/// How long a finished connection may take to close.
const CLOSE_GRACE: Duration = Duration::from_secs(5);

/// What is being done, to be named when it is given up.
#[derive(Default)]
struct Stage(AtomicUsize);

impl Stage {
    const NAMES: [&str; 4] = [
        "connecting",
        "agreeing on encryption",
        "logging in",
        "running the command",
    ];

    fn next(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn name(&self) -> &'static str {
        let at = self.0.load(Ordering::Relaxed).min(Self::NAMES.len() - 1);
        Self::NAMES[at]
    }
}

/// Runs the script on the node within this time, and tells the beginning of its output.
pub(super) async fn run(
    keys: &KeyRing,
    destination: &Destination<'_>,
    script: &Script,
    within: Duration,
) -> Result<Vec<u8>, SshError> {
    let stage = Stage::default();
    match timeout(within, run_unhurried(keys, destination, script, &stage)).await {
        Ok(result) => result,
        Err(_) => Err(SshError::Timeout {
            host: destination.name(),
            after: destination.settings.timeout,
            during: stage.name(),
        }),
    }
}

async fn run_unhurried(
    keys: &KeyRing,
    destination: &Destination<'_>,
    script: &Script,
    stage: &Stage,
) -> Result<Vec<u8>, SshError> {
    let lost = |error: &dyn std::fmt::Display| SshError::Lost {
        host: destination.name(),
        during: stage.name(),
        reason: one_line(&error.to_string()),
    };
    let stream = connect(destination).await?;
    stream.set_nodelay(true).map_err(|error| lost(&error))?;
    let (stream, line) = Line::new(stream).map_err(|error| lost(&error))?;

    stage.next();
    let verifier = Verifier {
        expected: destination.host_keys.to_vec(),
        shown: Arc::default(),
    };
    let shown = Arc::clone(&verifier.shown);
    let config = Arc::new(client_config(destination));
    let mut handle = russh::client::connect_stream(config, stream, verifier)
        .await
        .map_err(|error| match error {
            russh::Error::UnknownKey => SshError::HostKey {
                host: destination.name(),
                reason: format!(
                    "its host key is {}",
                    shown.lock().unwrap_or_else(PoisonError::into_inner)
                ),
            },
            russh::Error::NoCommonAlgo {
                kind: AlgorithmKind::Key,
                theirs,
                ..
            } if !destination.host_keys.is_empty() => SshError::HostKey {
                host: destination.name(),
                reason: format!(
                    "it only has host keys of other kinds ({})",
                    one_line(&theirs.join(", "))
                ),
            },
            other => lost(&other),
        })?;

    stage.next();
    let identities = keys.load(destination.identity_files());
    log_in(&mut handle, destination, &identities).await?;

    stage.next();
    let result = run_script(&handle, destination, script, &lost).await;
    // The farewell is not worth waiting for.
    tokio::spawn(async move {
        let farewell = async {
            let _ = handle.disconnect(Disconnect::ByApplication, "", "en").await;
            let _ = handle.await;
        };
        let _ = timeout(CLOSE_GRACE, farewell).await;
        drop(line);
    });
    result
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
    let mut last = None;
    for address in addresses {
        let within = destination.settings.connect_timeout;
        let reason = match timeout(within, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {within:?}"),
        };
        last = Some(SshError::Connect {
            host: address.to_string(),
            reason,
        });
    }
    Err(last.unwrap_or_else(|| {
        resolve("it has none of the family that ssh_config asks for".to_owned())
    }))
}

fn client_config(destination: &Destination<'_>) -> Config {
    let mut preferred = Preferred::DEFAULT;
    if !destination.host_keys.is_empty() {
        // Otherwise the node may show another of its keys than the one that was announced.
        let announced = |algorithm: &Algorithm| {
            destination
                .host_keys
                .iter()
                .any(|key| kind_of(&key.algorithm()) == kind_of(algorithm))
        };
        let kinds: Vec<Algorithm> = preferred
            .key
            .iter()
            .filter(|algorithm| announced(algorithm))
            .cloned()
            .collect();
        preferred.key = kinds.into();
    }
    Config {
        preferred,
        nodelay: true,
        inactivity_timeout: Some(destination.settings.timeout),
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

/// Lets in any host, or only those announced.
pub(super) struct Verifier {
    expected: Vec<PublicKey>,
    /// The fingerprint of what was turned down.
    shown: Arc<Mutex<String>>,
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
                if self
                    .expected
                    .iter()
                    .any(|known| known.key_data() == key.key_data())
                {
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

async fn run_script(
    handle: &Handle<Verifier>,
    destination: &Destination<'_>,
    script: &Script,
    lost: &(dyn Fn(&dyn std::fmt::Display) -> SshError + Sync),
) -> Result<Vec<u8>, SshError> {
    let channel = handle
        .channel_open_session()
        .await
        .map_err(|error| lost(&error))?;
    channel
        .exec(true, script.command.as_bytes())
        .await
        .map_err(|error| lost(&error))?;
    let (mut replies, requests) = channel.split();
    let feeding = async {
        // If this breaks, the node's side ends too, and says more.
        if !script.input.is_empty() {
            let _ = requests.data(&script.input[..]).await;
        }
        let _ = requests.eof().await;
        std::future::pending::<()>().await;
    };
    let mut stdout = Vec::new();
    let mut stderr = Vec::new();
    let reading = async {
        let mut exit = None;
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
                ChannelMsg::ExitStatus { exit_status } => exit = Some(Ok(exit_status)),
                ChannelMsg::ExitSignal { signal_name, .. } => {
                    exit = Some(Err(one_line(&format!("signal {signal_name:?}"))));
                }
                ChannelMsg::Failure => return Some(Err("its server refusing commands".to_owned())),
                _ => {}
            }
        }
        exit
    };
    let exit = tokio::select! {
        exit = reading => exit,
        () = feeding => None,
    };
    let exit = match exit {
        Some(Ok(0)) => return Ok(stdout),
        Some(Ok(status)) => format!("status {status}"),
        Some(Err(signal)) => signal,
        None => return Err(lost(&"it was closed before the command had ended")),
    };
    Err(SshError::Command {
        host: destination.name(),
        what: script.what,
        exit,
        stderr: one_line(&String::from_utf8_lossy(&stderr)),
    })
}

/// A second handle on the connection, which closes it when dropped: a caller that gives up leaves no task behind
/// that waits for the node.
struct Line(std::net::TcpStream);

impl Line {
    fn new(stream: TcpStream) -> std::io::Result<(TcpStream, Self)> {
        let stream = stream.into_std()?;
        let line = Self(stream.try_clone()?);
        Ok((TcpStream::from_std(stream)?, line))
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let _ = self.0.shutdown(Shutdown::Both);
    }
}
