//! SSH to nodes: puts a tenant's keys on a node, and takes them off again.
//!
//! There are two clients behind one pair of functions: one in this process, which is several times
//! quicker, and `/usr/bin/ssh` for what only that can do. Both make one connection and run one command
//! per node; `script.rs` has the command.

mod config;
mod error;
mod identities;
// A module of `build.rs`; here for its tests.
#[cfg(test)]
mod join_lines;
mod keygen;
mod login;
mod native;
mod openssh;
mod profile;
mod script;
mod survey;

use std::ffi::OsStr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use config::ConfigReader;
pub use config::home_directory;
pub use error::SshError;
use error::one_line;
use identities::KeyRing;
pub use keygen::generate_key;
use profile::Profile;
use russh::keys::PublicKey;
use script::{FENCED_OFF, OVERTAKEN, READ_LIMIT, Script, number_in, tenant_part};
use serde_json::Value;

use crate::process::find_program;

/// Where a node's SSH server is, and how it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// Name or address.
    pub host: String,
    /// Port, if the mechanism named one; it comes before what ssh_config says.
    pub port: Option<u16>,
    /// Public host keys in OpenSSH's form, one line each, if the mechanism named any. Then the node must
    /// have one of them; otherwise any key will do, as nodes are made anew all the time.
    pub host_keys: Vec<String>,
    /// The number of the work that this is for, if it has one: of two works on a node the later has the
    /// higher. The node keeps it, and nothing is changed there for a work that has a lower one.
    pub fence: Option<i64>,
}

/// The port that a mechanism names: a number or a string of digits, as templates often yield those.
pub fn read_port(port: &Value) -> Option<u16> {
    let port = match port {
        Value::Number(port) => u16::try_from(port.as_u64()?).ok(),
        Value::String(port) => port.parse().ok(),
        _ => None,
    };
    port.filter(|port| *port > 0)
}

/// Which client is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientChoice {
    /// The one in this process, unless ssh_config asks for something that it cannot do.
    #[default]
    Auto,
    /// The one in this process.
    Native,
    /// The `ssh` program.
    OpenSsh,
}

/// How nodes are reached.
#[derive(Clone, Debug)]
pub struct SshSettings {
    /// Which client is used.
    pub client: ClientChoice,
    /// How long one connection may take to be made.
    pub connect_timeout: Duration,
    /// How long everything together may take for one node.
    pub timeout: Duration,
    /// Private keys to log in with, and no others. If empty: those of ssh_config, of the agent, and the
    /// usual ones in `~/.ssh`.
    pub identity_files: Vec<PathBuf>,
    /// Read in place of `~/.ssh/config` and `/etc/ssh/ssh_config`.
    pub config_file: Option<PathBuf>,
}

impl Default for SshSettings {
    fn default() -> Self {
        Self {
            client: ClientChoice::Auto,
            connect_timeout: Duration::from_secs(10),
            timeout: Duration::from_secs(30),
            identity_files: Vec::new(),
            config_file: None,
        }
    }
}

/// Access to nodes. Clones share what is known about configuration and keys.
#[derive(Clone, Debug)]
pub struct Ssh(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    settings: SshSettings,
    /// The `ssh` program, where there is one.
    program: Option<PathBuf>,
    config: ConfigReader,
    keys: KeyRing,
}

/// One node, ready to be connected to.
struct Destination<'a> {
    target: &'a Target,
    profile: &'a Profile,
    host_keys: &'a [PublicKey],
    settings: &'a SshSettings,
}

impl Destination<'_> {
    /// The node as messages name it.
    fn name(&self) -> String {
        let host = &self.target.host;
        match self.target.port {
            Some(port) => format!("{host} port {port}"),
            None => host.clone(),
        }
    }

    fn identity_files(&self) -> &[PathBuf] {
        if self.settings.identity_files.is_empty() {
            &self.profile.identity_files
        } else {
            &self.settings.identity_files
        }
    }

    fn identities_only(&self) -> bool {
        self.profile.identities_only || !self.settings.identity_files.is_empty()
    }
}

impl Ssh {
    /// Checks the settings, and that the keys they name can be used.
    ///
    /// # Errors
    /// [`SshError::Config`] for what must be put right before any node can be reached.
    pub fn new(settings: SshSettings) -> Result<Self, SshError> {
        let program = find_program(OsStr::new("ssh"));
        if settings.client == ClientChoice::OpenSsh && program.is_none() {
            return Err(SshError::Config(
                "ssh.client is openssh, but there is no program ssh in PATH; install OpenSSH's client, \
                 or set it to auto"
                    .to_owned(),
            ));
        }
        if settings.timeout.is_zero() || settings.connect_timeout.is_zero() {
            return Err(SshError::Config(
                "ssh: the timeouts are zero; give them at least a second".to_owned(),
            ));
        }
        let keys = KeyRing::default();
        for path in &settings.identity_files {
            KeyRing::check(path)?;
        }
        let config = ConfigReader::new(settings.config_file.clone(), program.clone())?;
        Ok(Self(Arc::new(Inner {
            settings,
            program,
            config,
            keys,
        })))
    }

    /// Puts a tenant's keys on a node, in place of any that a tenant had there before.
    ///
    /// The node's `authorized_keys` must exist. It is replaced in one step: afterwards the new keys are
    /// there, or, on an error, what was there before; only when the connection breaks at the very end can
    /// it be either.
    pub async fn install_keys(&self, target: &Target, tenant_keys: &str) -> Result<(), SshError> {
        let script = Script::install(tenant_keys, target.fence)?;
        self.run(target, script).await.map(drop)
    }

    /// Takes all tenants' keys off a node. That there are none, or no such file, is fine.
    pub async fn remove_keys(&self, target: &Target) -> Result<(), SshError> {
        let script = Script::remove(target.fence)?;
        self.run(target, script).await.map(drop)
    }

    /// Reads the tenants' keys on a node, for a check. `None` where there are none, or no such file.
    ///
    /// # Errors
    /// Also when the file is longer than a mebibyte: its end is not looked at then.
    pub async fn read_tenant_keys(&self, target: &Target) -> Result<Option<String>, SshError> {
        let script = Script::read();
        let what = script.what;
        let content = self.run(target, script).await?;
        if content.len() > READ_LIMIT {
            return Err(SshError::Command {
                host: target.host.clone(),
                what,
                exit: "too much output".to_owned(),
                stderr: format!("authorized_keys is longer than {READ_LIMIT} bytes"),
            });
        }
        Ok(tenant_part(&String::from_utf8_lossy(&content)))
    }

    /// Runs a command on a node, and tells the beginning of its output.
    async fn run(&self, target: &Target, script: Script) -> Result<Vec<u8>, SshError> {
        let started = Instant::now();
        let inner = &*self.0;
        let within = inner.settings.timeout;
        let begun = AtomicBool::new(false);
        let work = async {
            let mut overtaken = false;
            loop {
                match self.run_unhurried(target, &script, started, &begun).await {
                    // A late command came between, or a node with the same home: begin again.
                    Err(SshError::Command { exit, .. }) if exit == OVERTAKEN => {
                        overtaken = true;
                        tokio::time::sleep(overtaken_pause()).await;
                    }
                    // The node has had the command already.
                    Err(error) if overtaken && error.is_own_fault() => {
                        return Err(SshError::Lost {
                            host: target.host.clone(),
                            during: "trying again",
                            reason: one_line(&error.to_string()),
                        });
                    }
                    result => return result.map_err(|error| find_fence(target, error)),
                }
            }
        };
        let result = match tokio::time::timeout(within, work).await {
            Ok(result) => result,
            Err(_) => Err(SshError::Timeout {
                host: target.host.clone(),
                after: within,
                during: if begun.load(Ordering::Relaxed) {
                    "running ssh"
                } else {
                    "reading its ssh_config"
                },
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

    async fn run_unhurried(
        &self,
        target: &Target,
        script: &Script,
        started: Instant,
        begun: &AtomicBool,
    ) -> Result<Vec<u8>, SshError> {
        let inner = &*self.0;
        check_host(&target.host)?;
        let host_keys = parse_host_keys(target)?;
        let profile = inner.config.profile_for(&target.host).await?;
        let destination = Destination {
            target,
            profile: &profile,
            host_keys: &host_keys,
            settings: &inner.settings,
        };
        // A little less than the whole, so that the client's own message, which knows more, comes first.
        let left = inner
            .settings
            .timeout
            .saturating_sub(started.elapsed())
            .mul_f64(0.98);
        let program = match (inner.settings.client, &profile.needs_openssh) {
            (ClientChoice::Native, Some(option)) => {
                return Err(SshError::Config(format!(
                    "ssh_config sets {option} for {}, which Duffy's own client cannot do; set ssh.client \
                     to auto or openssh",
                    target.host
                )));
            }
            (ClientChoice::Native | ClientChoice::Auto, None) => None,
            (ClientChoice::OpenSsh, _) | (ClientChoice::Auto, Some(_)) => {
                Some(inner.program.as_ref().ok_or_else(|| {
                    SshError::Config(
                        "there is no program ssh in PATH; install OpenSSH's client".to_owned(),
                    )
                })?)
            }
        };
        begun.store(true, Ordering::Relaxed);
        match program {
            Some(program) => openssh::run(program, &destination, script, left).await,
            None => native::run(&inner.keys, &destination, script, left).await,
        }
    }
}

/// Tells apart what failed from what came too late.
fn find_fence(target: &Target, error: SshError) -> SshError {
    let SshError::Command {
        host, exit, stderr, ..
    } = &error
    else {
        return error;
    };
    match (target.fence, number_in(stderr)) {
        (Some(fence), Some(kept)) if exit == FENCED_OFF => SshError::FencedOff {
            host: host.clone(),
            fence,
            kept,
        },
        _ => error,
    }
}

/// A random pause of some tens of milliseconds, so that two commands do not overtake each other again.
fn overtaken_pause() -> Duration {
    Duration::from_millis(rand::random_range(10..100))
}

/// Refuses what a command line could take for something else than a host.
fn check_host(host: &str) -> Result<(), SshError> {
    let good = !host.is_empty()
        && host.len() <= 255
        && !host.starts_with('-')
        && host
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '%'));
    good.then_some(()).ok_or_else(|| SshError::Resolve {
        host: one_line(&format!("{host:?}")),
        reason: "it is not a host name or address".to_owned(),
    })
}

/// Reads the announced host keys, with or without the host's name before them, as `ssh-keyscan` has it.
fn parse_host_keys(target: &Target) -> Result<Vec<PublicKey>, SshError> {
    let lines = target.host_keys.iter().flat_map(|text| text.lines());
    lines
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| {
            PublicKey::from_openssh(line)
                .or_else(|error| {
                    let (_host, rest) = line.split_once(char::is_whitespace).ok_or(error)?;
                    PublicKey::from_openssh(rest.trim_start())
                })
                .map_err(|_| SshError::HostKey {
                    host: target.host.clone(),
                    reason: one_line(&format!(
                        "its announced host key {line:?} is not a public key in OpenSSH's form"
                    )),
                })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_that_are_none_are_refused() {
        for host in [
            "",
            "-oProxyCommand=x",
            "a b",
            "a\nb",
            "root@a",
            "a;b",
            "$(a)",
            "a/b",
        ] {
            assert!(check_host(host).is_err(), "{host:?}");
        }
        for host in ["10.0.0.1", "fe80::1%eth0", "n-1.example_x.org"] {
            assert!(check_host(host).is_ok(), "{host:?}");
        }
    }

    #[test]
    fn host_keys_are_read_as_files_have_them() {
        let key =
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
        let target = |lines: &[&str]| Target {
            host: "h".to_owned(),
            port: None,
            host_keys: lines.iter().map(ToString::to_string).collect(),
            fence: None,
        };
        let scanned = format!("# h:22 SSH-2.0\n[h]:22 {key}\n\n{key} root@h");
        assert_eq!(parse_host_keys(&target(&[&scanned, key])).unwrap().len(), 3);
        let error = parse_host_keys(&target(&["nonsense"]))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("h is not the announced machine") && error.contains("nonsense"),
            "{error}"
        );
    }
}
