//! SSH to nodes: puts a tenant's keys on a node, and takes them off again.
//!
//! There are two clients: one in this process, which is several times faster, and `/usr/bin/ssh` for what
//! only that can do. Both make one connection and run one command per node; `script.rs` has the command.

mod config;
mod destination;
mod error;
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
use std::sync::Arc;
use std::time::{Duration, Instant};

use duffy_config::{Ssh as Settings, SshClient};
use serde_json::Value;
use tokio::sync::watch;

use config::ConfigReader;
pub use destination::Target;
use destination::{Destination, Finished};
pub use error::SshError;
use error::one_line;
use identities::KeyRing;
pub use identities::{generate_key, public_keys};
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

    /// Runs a command on a node within the time for it, and returns the beginning of its output.
    async fn run(&self, target: &Target, script: &Script) -> Result<Vec<u8>, SshError> {
        let started = Instant::now();
        let within = self.settings.timeout;
        let stage = watch::Sender::new("reading its ssh_config");
        let work = self.run_until_current(target, script, started, &stage);
        let result = match tokio::time::timeout(within, work).await {
            Ok(result) => result,
            Err(_) => Err(SshError::Timeout {
                host: target.name(),
                after: within,
                during: *stage.borrow(),
            }),
        };
        let duration_ms = started.elapsed().as_millis();
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
        started: Instant,
        stage: &watch::Sender<&'static str>,
    ) -> Result<Vec<u8>, SshError> {
        let mut overtaken = false;
        loop {
            match self.run_once(target, script, started, stage).await {
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
        started: Instant,
        stage: &watch::Sender<&'static str>,
    ) -> Result<Finished, SshError> {
        target.check_host()?;
        let host_keys = target.parse_host_keys()?;
        let profile = self.config.profile_for(&target.host).await?;
        let destination = Destination {
            target,
            profile: &profile,
            host_keys: &host_keys,
            settings: &self.settings,
            stage,
        };
        // A little less than the whole, so that the client's own message comes first, and time is left for another node.
        let left = self.settings.timeout.saturating_sub(started.elapsed());
        let left = left.mul_f64(0.98);
        match (self.settings.client, profile.needs_openssh) {
            (SshClient::Native, Some(option)) => Err(SshError::Config(format!(
                "ssh_config sets {option} for {}, which Duffy's own client cannot do; set ssh.client \
                 to auto or openssh",
                target.host
            ))),
            (SshClient::Native | SshClient::Auto, None) => {
                let work = native::run(&self.keys, &destination, script);
                let result = tokio::time::timeout(left, work).await;
                result.unwrap_or_else(|_| Err(destination.timed_out()))
            }
            (SshClient::OpenSsh, _) | (SshClient::Auto, Some(_)) => {
                let Some(program) = &self.config.program else {
                    return Err(SshError::Config(
                        "there is no program ssh in PATH; install OpenSSH's client".to_owned(),
                    ));
                };
                openssh::run(program, &destination, script, left).await
            }
        }
    }
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
