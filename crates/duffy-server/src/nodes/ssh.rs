//! SSH to nodes: puts a tenant's keys on a node, and takes them off again.
//!
//! There are two clients: one in this process, which is several times faster, and `/usr/bin/ssh` for what
//! only that can do. Both make one connection and run one command per node; `script.rs` has the command.
//! The client in this process can also open the connection in advance and hold it.

mod config;
mod destination;
mod error;
mod held;
mod identities;
// A module of `build.rs`; here for its tests.
#[cfg(test)]
mod join_lines;
mod login;
mod native;
mod openssh;
mod profile;
mod script;
mod survey;

use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use duffy_config::{Ssh as Settings, SshClient};
use russh::keys::PublicKey;
use serde_json::Value;
use tokio::sync::watch;

use config::ConfigReader;
pub use destination::Target;
use destination::{Destination, Finished};
pub use error::SshError;
use error::one_line;
use held::HeldConnections;
pub use held::{HeldConnection, HoldEnd};
use identities::KeyRing;
pub use identities::{generate_key, public_keys};
use native::Connection;
use profile::Profile;
use script::{FENCED_OFF, OVERTAKEN, READ_LIMIT, Script, number_in, tenant_part};

use crate::process::find_program;

/// The port that a mechanism names: a number or a string of digits, because templates often give these.
pub fn read_port(port: &Value) -> Option<u16> {
    let port = match port {
        Value::Number(port) => u16::try_from(port.as_u64()?).ok(),
        Value::String(port) => port.parse().ok(),
        _ => None,
    };
    port.filter(|port| *port > 0)
}

/// Access to nodes. Clones share what is known about configuration and keys.
#[derive(Clone, Debug)]
pub struct Ssh {
    settings: Settings,
    config: Arc<ConfigReader>,
    keys: Arc<KeyRing>,
    held: Arc<HeldConnections>,
}

impl Ssh {
    /// Checks the settings, and that the keys they name can be used.
    ///
    /// # Errors
    /// [`SshError::Config`] for what must be corrected before any node can be reached.
    pub fn new(settings: Settings) -> Result<Self, SshError> {
        let program = find_program(OsStr::new("ssh"));
        if settings.client == SshClient::OpenSsh && program.is_none() {
            return Err(SshError::Config(
                "ssh.client is openssh, but there is no program ssh in PATH; install OpenSSH's client, \
                 or set it to auto"
                    .to_owned(),
            ));
        }
        for path in &settings.identity_files {
            KeyRing::check(path)?;
        }
        Ok(Self {
            config: Arc::new(ConfigReader::new(settings.config_file.clone(), program)?),
            keys: Arc::default(),
            held: Arc::default(),
            settings,
        })
    }

    /// Puts a tenant's keys on a node, in place of any that a tenant had there before.
    ///
    /// The node's `authorized_keys` must exist. It is replaced in one step: afterwards the new keys are
    /// there, or, on an error, the old content. Only when the connection breaks at the very end can
    /// it be either.
    pub async fn install_keys(&self, target: &Target, tenant_keys: &str) -> Result<(), SshError> {
        let script = Script::install(tenant_keys, target.fence)?;
        self.run(target, &script).await.map(drop)
    }

    /// Takes all tenants' keys off a node. It is no error if there are none, or no such file.
    pub async fn remove_keys(&self, target: &Target) -> Result<(), SshError> {
        let script = Script::remove(target.fence)?;
        self.run(target, &script).await.map(drop)
    }

    /// Reads the tenants' keys on a node, for a check. `None` if there are none, or no such file.
    ///
    /// # Errors
    /// Also when the file is longer than a mebibyte, because its end is not read.
    pub async fn read_tenant_keys(&self, target: &Target) -> Result<Option<String>, SshError> {
        let script = Script::read();
        let content = self.run(target, &script).await?;
        if content.len() > READ_LIMIT {
            return Err(SshError::Command {
                host: target.host.clone(),
                what: script.what,
                exit: "too much output".to_owned(),
                stderr: format!("authorized_keys is longer than {READ_LIMIT} bytes"),
            });
        }
        Ok(tenant_part(&String::from_utf8_lossy(&content)))
    }

    /// Sets how many connections this process holds; 0 closes them.
    pub fn hold_up_to(&self, connections: usize) {
        self.held.set_capacity(connections);
    }

    /// Checks that a node lets Duffy in. With `hold`, holds the connection if there is room for it.
    pub async fn log_in(&self, target: &Target, hold: bool) -> Result<(), SshError> {
        let attempt = Attempt::new(&self.settings);
        let script = Script::log_in();
        let work = self.log_in_once(target, hold, &script, &attempt);
        self.within_timeout(target, &script, &attempt, work).await
    }

    async fn log_in_once(
        &self,
        target: &Target,
        hold: bool,
        script: &Script,
        attempt: &Attempt,
    ) -> Result<(), SshError> {
        let profile = self.read_profile(target).await?;
        let host_keys = target.parse_host_keys()?;
        let destination = self.destination(target, &profile, &host_keys, attempt);
        match self.client_for(target, &profile)? {
            Client::Native => {
                let connection = self.open(&destination, attempt.time_left()).await?;
                if hold {
                    self.held.keep(target, profile, connection);
                } else {
                    connection.close();
                }
                Ok(())
            }
            Client::OpenSsh(program) => {
                let run = openssh::run(program, &destination, script, attempt.time_left());
                judge(target, script, run.await?).map(drop)
            }
        }
    }

    /// Returns the connection to a node that is held, without taking it.
    pub fn held_connection(&self, target: &Target) -> Option<HeldConnection> {
        HeldConnection::find(&self.held, target)
    }

    /// Closes the connection to a node if it is held.
    pub fn let_go(&self, target: &Target) {
        self.held.close(target);
    }

    /// Closes the held connections to other nodes than these, unless a command may be about to take them.
    pub fn retain_held<'a>(&self, targets: impl Iterator<Item = &'a Target>) {
        self.held.retain(targets);
    }

    /// Whether a connection to a node can be held. Only Duffy's own client can do that.
    pub async fn can_hold(&self, target: &Target) -> bool {
        let profile = self.read_profile(target).await;
        profile.is_ok_and(|profile| matches!(self.client_for(target, &profile), Ok(Client::Native)))
    }

    /// Runs a command on a node within the time for it, and returns the beginning of its output.
    async fn run(&self, target: &Target, script: &Script) -> Result<Vec<u8>, SshError> {
        let attempt = Attempt::new(&self.settings);
        let work = self.run_until_current(target, script, &attempt);
        self.within_timeout(target, script, &attempt, work).await
    }

    /// Does work on a node within the time for it.
    async fn within_timeout<T>(
        &self,
        target: &Target,
        script: &Script,
        attempt: &Attempt,
        work: impl Future<Output = Result<T, SshError>>,
    ) -> Result<T, SshError> {
        let within = self.settings.timeout;
        // Boxed, because it is large.
        let result = match tokio::time::timeout(within, Box::pin(work)).await {
            Ok(result) => result,
            Err(_) => Err(SshError::Timeout {
                host: target.name(),
                after: within,
                during: *attempt.stage.borrow(),
            }),
        };
        let duration_ms = attempt.started.elapsed().as_millis();
        match &result {
            Ok(_) => {
                tracing::debug!(host = %target.host, what = script.what, duration_ms, "ssh done");
            }
            Err(error) => {
                tracing::debug!(host = %target.host, what = script.what, duration_ms, %error, "ssh failed");
            }
        }
        result
    }

    /// Runs a command again as long as another command overtakes it.
    async fn run_until_current(
        &self,
        target: &Target,
        script: &Script,
        attempt: &Attempt,
    ) -> Result<Vec<u8>, SshError> {
        let mut overtaken = false;
        loop {
            match self.run_once(target, script, attempt).await {
                // A late command came between, or a node with the same home: begin again.
                Ok(finished) if finished.status == Ok(OVERTAKEN) => {
                    overtaken = true;
                    tokio::time::sleep(overtaken_pause()).await;
                }
                Ok(finished) => return judge(target, script, finished),
                // The node has already received the command.
                Err(error) if overtaken && error.is_own_fault() => {
                    return Err(SshError::Lost {
                        host: target.host.clone(),
                        during: "trying again",
                        reason: one_line(&error.to_string()),
                    });
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn run_once(
        &self,
        target: &Target,
        script: &Script,
        attempt: &Attempt,
    ) -> Result<Finished, SshError> {
        let profile = self.read_profile(target).await?;
        let host_keys = target.parse_host_keys()?;
        let destination = self.destination(target, &profile, &host_keys, attempt);
        match self.client_for(target, &profile)? {
            Client::Native => {
                if let Some(connection) = self.held.take(target, &profile) {
                    match run_and_close(connection, &destination, script, HELD_PATIENCE).await {
                        // A command can run twice. So Duffy logs in again.
                        Err(SshError::Lost { reason, .. }) => {
                            tracing::debug!(host = %target.host, reason, "lost a held connection");
                        }
                        result => return result,
                    }
                }
                let connection = self.open(&destination, attempt.time_left()).await?;
                run_and_close(connection, &destination, script, attempt.time_left()).await
            }
            Client::OpenSsh(program) => {
                openssh::run(program, &destination, script, attempt.time_left()).await
            }
        }
    }

    /// Opens a connection within this time.
    async fn open(
        &self,
        destination: &Destination<'_>,
        within: Duration,
    ) -> Result<Arc<Connection>, SshError> {
        let opened = tokio::time::timeout(within, native::open(&self.keys, destination)).await;
        opened
            .unwrap_or_else(|_| Err(destination.timed_out()))
            .map(Arc::new)
    }

    /// Reads what ssh_config says about a node.
    async fn read_profile(&self, target: &Target) -> Result<Arc<Profile>, SshError> {
        target.check_host()?;
        self.config.profile_for(&target.host).await
    }

    fn destination<'a>(
        &'a self,
        target: &'a Target,
        profile: &'a Profile,
        host_keys: &'a [PublicKey],
        attempt: &'a Attempt,
    ) -> Destination<'a> {
        Destination {
            target,
            profile,
            host_keys,
            settings: &self.settings,
            stage: &attempt.stage,
        }
    }

    /// Returns the client that the settings and ssh_config require for a node.
    fn client_for(&self, target: &Target, profile: &Profile) -> Result<Client<'_>, SshError> {
        match (self.settings.client, profile.needs_openssh) {
            (SshClient::Native, Some(option)) => Err(SshError::Config(format!(
                "ssh_config sets {option} for {}, which Duffy's own client cannot do; set ssh.client \
                 to auto or openssh",
                target.host
            ))),
            (SshClient::Native | SshClient::Auto, None) => Ok(Client::Native),
            (SshClient::OpenSsh, _) | (SshClient::Auto, Some(_)) => {
                let program = self.config.program.as_deref();
                program.map(Client::OpenSsh).ok_or_else(|| {
                    SshError::Config(
                        "there is no program ssh in PATH; install OpenSSH's client".to_owned(),
                    )
                })
            }
        }
    }
}

/// A client for a node.
enum Client<'a> {
    /// The one in this process.
    Native,
    /// This program.
    OpenSsh(&'a Path),
}

/// How long a node may take to accept a command on a held connection. After that, Duffy logs in again.
const HELD_PATIENCE: Duration = Duration::from_secs(2);

/// Work on one node, with the time for it.
struct Attempt {
    started: Instant,
    limit: Duration,
    /// What is being done, for messages.
    stage: watch::Sender<&'static str>,
}

impl Attempt {
    fn new(settings: &Settings) -> Self {
        Self {
            started: Instant::now(),
            // A little less than the whole, so that the client's own message comes first, and time is left for another
            // node.
            limit: settings.timeout.mul_f64(0.98),
            stage: watch::Sender::new("reading its ssh_config"),
        }
    }

    fn time_left(&self) -> Duration {
        self.limit.saturating_sub(self.started.elapsed())
    }
}

/// Runs a script within the time that is left, and closes the connection.
async fn run_and_close(
    connection: Arc<Connection>,
    destination: &Destination<'_>,
    script: &Script,
    patience: Duration,
) -> Result<Finished, SshError> {
    let result = connection.run(destination, script, patience).await;
    connection.close();
    result
}

/// The output of a command that succeeded. Tells a command that failed from one that came too late.
fn judge(target: &Target, script: &Script, finished: Finished) -> Result<Vec<u8>, SshError> {
    let (host, stderr) = (target.name(), one_line(&finished.stderr));
    let exit = match finished.status {
        Ok(0) => return Ok(finished.stdout),
        Ok(FENCED_OFF) if let (Some(fence), Some(kept)) = (target.fence, number_in(&stderr)) => {
            return Err(SshError::FencedOff { host, fence, kept });
        }
        Ok(status) => format!("status {status}"),
        Err(signal) => signal,
    };
    Err(SshError::Command {
        host,
        what: script.what,
        exit,
        stderr,
    })
}

/// A random pause of some tens of milliseconds, so that two commands do not overtake each other again.
fn overtaken_pause() -> Duration {
    Duration::from_millis(rand::random_range(10..100))
}
