//! A cloud in its own directory, a key that it accepts, and the real `ssh`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use duffy_sim::{Cloud, CloudSettings, Faults, Machine, SimError};
use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm, PrivateKey};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};

/// Deadline for everything that normally takes a moment.
pub const DEADLINE: Duration = Duration::from_secs(30);

pub struct World {
    pub directory: TempDir,
    pub key: PrivateKey,
    pub cloud: Arc<Cloud>,
}

impl World {
    pub async fn new() -> Self {
        Self::with(Faults::default()).await
    }

    pub async fn with(faults: Faults) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let key = PrivateKey::random(&mut rand::rng(), Algorithm::Ed25519).unwrap();
        let path = directory.path().join("key");
        fs::write(&path, key.to_openssh(LineEnding::LF).unwrap()).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let cloud = open(directory.path().join("cloud"), &key, faults)
            .await
            .unwrap();
        Self {
            directory,
            key,
            cloud,
        }
    }

    pub async fn reopen(&mut self) {
        self.cloud.shutdown().await;
        let path = self.directory.path().join("cloud");
        self.cloud = open(path, &self.key, Faults::default()).await.unwrap();
    }

    pub fn key_path(&self) -> PathBuf {
        self.directory.path().join("key")
    }

    /// Returns a command of the real client that trusts the machine's host key.
    pub fn ssh(&self, machine: &Machine, options: &[&str]) -> Command {
        let known = self
            .directory
            .path()
            .join(format!("known-{}", machine.name));
        let line = format!(
            "[{}]:{} {}\n",
            machine.ipaddr, machine.ssh_port, machine.host_key
        );
        fs::write(&known, line).unwrap();
        let mut ssh = Command::new("ssh");
        ssh.args([
            "-F",
            "/dev/null",
            "-o",
            "BatchMode=yes",
            "-o",
            "IdentitiesOnly=yes",
        ])
        .args(["-o", "StrictHostKeyChecking=yes", "-o", "LogLevel=ERROR"])
        .arg("-o")
        .arg(format!("UserKnownHostsFile={}", known.display()))
        .arg("-i")
        .arg(self.key_path())
        .args(["-p", &machine.ssh_port.to_string()])
        .args(options)
        .arg(format!("root@{}", machine.ipaddr))
        .env_remove("SSH_AUTH_SOCK")
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
        ssh
    }

    pub async fn run(&self, machine: &Machine, command: &str) -> Output {
        finish(self.ssh(machine, &[]).arg(command).spawn().unwrap(), b"").await
    }
}

async fn open(
    directory: PathBuf,
    key: &PrivateKey,
    faults: Faults,
) -> Result<Arc<Cloud>, SimError> {
    let admin_keys = vec![key.public_key().to_openssh().unwrap()];
    Cloud::open(CloudSettings {
        directory,
        admin_keys,
        faults,
    })
    .await
}

/// Writes a child's whole input and waits for its end.
pub async fn finish(mut child: Child, input: &[u8]) -> Output {
    let stdin = child.stdin.take();
    let feeding = async {
        if let Some(mut stdin) = stdin {
            // A child that ends early does not read all of it.
            let _ = stdin.write_all(input).await;
        }
    };
    let waiting = async { tokio::join!(feeding, child.wait_with_output()).1 };
    tokio::time::timeout(DEADLINE, waiting)
        .await
        .expect("the child ends in time")
        .unwrap()
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Waits until the condition is true.
pub async fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let waiting = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(10));
        while !condition() {
            ticks.tick().await;
        }
    };
    tokio::time::timeout(DEADLINE, waiting)
        .await
        .unwrap_or_else(|_| panic!("waited in vain until {what}"));
}
