//! Logs in to nodes with the system's ssh client, like a tenant.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use super::key::SshKey;
use super::tools;

/// An SSH server to log in to.
#[derive(Debug, Clone)]
pub struct SshEndpoint {
    /// The address.
    pub ip: String,
    /// The port.
    pub port: u16,
    /// Its expected host key, as one line.
    pub host_key: String,
}

impl SshEndpoint {
    /// Returns the SSH server of a node from `GET /nodes` or from a session, from the result of its mechanism.
    pub fn of(node: &Value) -> Self {
        let provision = &node["data"]["provision"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Self {
            ip: text(&provision["ipaddr"]),
            port: u16::try_from(provision["ssh_port"].as_u64().unwrap()).unwrap(),
            host_key: text(&provision["ssh_host_keys"][0]),
        }
    }

    /// Runs a command with this key only. `scratch` is the directory for the known_hosts file.
    pub fn login(&self, scratch: &Path, user: &str, key: &SshKey, command: &str) -> Output {
        let known_hosts = scratch.join(format!("known_hosts-{}", self.ip));
        let host = format!("[{}]:{} {}\n", self.ip, self.port, self.host_key);
        fs::write(&known_hosts, host).unwrap();
        let mut ssh = Command::new(tools::openssh("ssh"));
        ssh.args(["-F", "none"]);
        for option in [
            "BatchMode=yes",
            "IdentitiesOnly=yes",
            "IdentityAgent=none",
            "ConnectTimeout=10",
            "LogLevel=ERROR",
            "StrictHostKeyChecking=yes",
        ] {
            ssh.args(["-o", option]);
        }
        ssh.arg("-o")
            .arg(format!("UserKnownHostsFile={}", known_hosts.display()));
        ssh.arg("-i").arg(key.path());
        ssh.args(["-p", &self.port.to_string(), "-l", user]);
        ssh.args(["--", &self.ip, command]);
        ssh.stdin(Stdio::null()).output().unwrap()
    }

    /// Whether root can log in with this key.
    pub fn lets_in(&self, scratch: &Path, key: &SshKey) -> bool {
        self.login(scratch, "root", key, "true").status.success()
    }
}
