//! A node as the clients see it: where it is, how it is known, and what was done there.

use std::fmt::Display;
use std::path::PathBuf;

use duffy_config::Ssh as Settings;
use russh::keys::PublicKey;
use tokio::sync::watch;

use super::SshError;
use super::error::one_line;
use super::profile::Profile;

/// Where a node's SSH server is, and how it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// Name or address.
    pub host: String,
    /// Port, if the mechanism named one; it takes precedence over ssh_config.
    pub port: Option<u16>,
    /// Public host keys in OpenSSH's form, one line each, if the mechanism named any. Then the node must
    /// have one of them. Otherwise any key is accepted, because nodes are made anew all the time.
    pub host_keys: Vec<String>,
    /// The number of the work that this is for, if it has one: of two works on a node the later has the
    /// higher. The node keeps it, and refuses changes for a work with a lower one.
    pub fence: Option<i64>,
}

impl Target {
    /// The node as messages name it.
    pub(super) fn name(&self) -> String {
        let host = &self.host;
        match self.port {
            Some(port) => format!("{host} port {port}"),
            None => host.clone(),
        }
    }

    /// Refuses what a command line could take for something else than a host.
    pub(super) fn check_host(&self) -> Result<(), SshError> {
        let host = &self.host;
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

    /// Reads the announced host keys, with or without the host's name before them, as `ssh-keyscan` prints them.
    pub(super) fn parse_host_keys(&self) -> Result<Vec<PublicKey>, SshError> {
        let lines = self.host_keys.iter().flat_map(|text| text.lines());
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
                        host: self.host.clone(),
                        reason: one_line(&format!(
                            "its announced host key {line:?} is not a public key in OpenSSH's form"
                        )),
                    })
            })
            .collect()
    }
}

/// One node, ready to be connected to.
pub(super) struct Destination<'a> {
    pub target: &'a Target,
    pub profile: &'a Profile,
    pub host_keys: &'a [PublicKey],
    pub settings: &'a Settings,
    /// What is being done, for messages.
    pub stage: &'a watch::Sender<&'static str>,
}

impl Destination<'_> {
    pub fn identity_files(&self) -> &[PathBuf] {
        if self.settings.identity_files.is_empty() {
            &self.profile.identity_files
        } else {
            &self.settings.identity_files
        }
    }

    /// The same for messages.
    pub fn list_identity_files(&self) -> String {
        let files = self.identity_files().iter();
        let names: Vec<_> = files.map(|path| path.display().to_string()).collect();
        names.join(", ")
    }

    pub fn identities_only(&self) -> bool {
        self.profile.identities_only || !self.settings.identity_files.is_empty()
    }

    /// The time was over while this stage lasted.
    pub fn timed_out(&self) -> SshError {
        SshError::Timeout {
            host: self.target.name(),
            after: self.settings.timeout,
            during: *self.stage.borrow(),
        }
    }

    /// The connection broke while this stage lasted.
    pub fn lost(&self, reason: impl Display) -> SshError {
        SshError::Lost {
            host: self.target.name(),
            during: *self.stage.borrow(),
            reason: one_line(&reason.to_string()),
        }
    }
}

/// A command that ended on a node.
pub(super) struct Finished {
    /// The exit status, or for messages how the command ended without one.
    pub status: Result<u32, String>,
    /// The beginning of the output, as much as the script has use for.
    pub stdout: Vec<u8>,
    /// The last part of what the command wrote for people.
    pub stderr: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_that_are_none_are_refused() {
        let check = |host: &str| {
            let host = host.to_owned();
            let target = Target {
                host,
                ..Target::default()
            };
            target.check_host()
        };
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
            assert!(check(host).is_err(), "{host:?}");
        }
        for host in ["10.0.0.1", "fe80::1%eth0", "n-1.example_x.org"] {
            assert!(check(host).is_ok(), "{host:?}");
        }
    }

    #[test]
    fn host_keys_are_read_as_files_have_them() {
        let key =
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
        let target = |lines: &[&str]| Target {
            host: "h".to_owned(),
            host_keys: lines.iter().map(ToString::to_string).collect(),
            ..Target::default()
        };
        let scanned = format!("# h:22 SSH-2.0\n[h]:22 {key}\n\n{key} root@h");
        let keys = target(&[&scanned, key]).parse_host_keys().unwrap();
        assert_eq!(keys.len(), 3);
        let error = target(&["nonsense"])
            .parse_host_keys()
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("h is not the announced machine") && error.contains("nonsense"),
            "{error}"
        );
    }
}
