//! The client that is `/usr/bin/ssh`.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use tempfile::NamedTempFile;
use tokio_util::sync::CancellationToken;

use super::SshError;
use super::config::write_temporary;
use super::destination::{Destination, Finished};
use super::error::one_line;
use super::script::Script;
use crate::process::{self, ProcessError, Spec};

/// The name under which announced host keys are looked up, for any node.
const HOST_KEY_ALIAS: &str = "duffy-node";
/// The exit status of `ssh` itself.
const OWN_FAILURE: i32 = 255;

/// No prompt, no terminal and no forwarding, whatever ssh_config says; and no host key is remembered.
const OPTIONS: [&str; 19] = [
    "BatchMode=yes",
    "CheckHostIP=no",
    "ClearAllForwardings=yes",
    "EscapeChar=none",
    "ForwardAgent=no",
    "ForwardX11=no",
    "GlobalKnownHostsFile=/dev/null",
    "KbdInteractiveAuthentication=no",
    "LogLevel=ERROR",
    "NumberOfPasswordPrompts=0",
    "PasswordAuthentication=no",
    "PermitLocalCommand=no",
    "PubkeyAuthentication=yes",
    "RemoteCommand=none",
    "RequestTTY=no",
    "ServerAliveInterval=15",
    "Tunnel=no",
    "UpdateHostKeys=no",
    "VerifyHostKeyDNS=no",
];

/// Runs the script on the node within this time.
pub(super) async fn run(
    program: &Path,
    destination: &Destination<'_>,
    script: &Script,
    within: Duration,
) -> Result<Finished, SshError> {
    destination.stage.send_replace("running ssh");
    let known_hosts = write_known_hosts(destination)?;
    let known_hosts_path = known_hosts.as_ref().map(NamedTempFile::path);
    let spec = Spec {
        stdin: Some(script.input.clone()),
        deadline: within,
        grace: Duration::from_secs(1),
        tail_lines: 20,
        capture_stdout: script.output_limit,
        ..Spec::new(program)
            .args(arguments(destination, known_hosts_path))
            .args([&script.command])
            // Batch mode does not reach a jump host's own ssh, which would ask on the terminal.
            .env("SSH_ASKPASS", "false")
            .env("SSH_ASKPASS_REQUIRE", "force")
    };
    let output = process::run(spec, &CancellationToken::new())
        .await
        .map_err(|error| explain_no_output(destination, &error))?;
    let code = output.status.code();
    if code == Some(OWN_FAILURE) {
        return Err(explain(destination, &output.tail));
    }
    let status = code.and_then(|code| u32::try_from(code).ok());
    Ok(Finished {
        status: status.ok_or_else(|| "a signal".to_owned()),
        stdout: output.stdout,
        stderr: output.tail,
    })
}

/// Says what it means for the node that there is no output of `ssh`.
fn explain_no_output(destination: &Destination<'_>, error: &ProcessError) -> SshError {
    match error {
        ProcessError::NotFound { .. } | ProcessError::Start { .. } => SshError::Program {
            host: destination.target.name(),
            reason: one_line(&error.to_string()),
        },
        ProcessError::Deadline { .. } => destination.timed_out(),
        // It was started: the command may have run.
        ProcessError::Stopped | ProcessError::Io { .. } => destination.lost(error),
    }
}

fn arguments(destination: &Destination<'_>, known_hosts: Option<&Path>) -> Vec<OsString> {
    let settings = destination.settings;
    let mut arguments: Vec<OsString> = Vec::new();
    if let Some(file) = &settings.config_file {
        arguments.extend(["-F".into(), file.into()]);
    }
    let mut option = |text: String| arguments.extend(["-o".into(), text.into()]);
    for text in OPTIONS {
        option(text.to_owned());
    }
    let seconds = settings.connect_timeout.as_secs_f64().ceil() as u64;
    option(format!("ConnectTimeout={seconds}"));
    if let Some(path) = known_hosts {
        option("StrictHostKeyChecking=yes".to_owned());
        option(format!("HostKeyAlias={HOST_KEY_ALIAS}"));
        option(format!("UserKnownHostsFile={}", path.display()));
    } else {
        option("StrictHostKeyChecking=no".to_owned());
        option("UserKnownHostsFile=/dev/null".to_owned());
    }
    if !settings.identity_files.is_empty() {
        option("IdentitiesOnly=yes".to_owned());
    }
    for file in &settings.identity_files {
        arguments.extend(["-i".into(), file.into()]);
    }
    if let Some(port) = destination.target.port {
        arguments.extend(["-p".into(), port.to_string().into()]);
    }
    let user = destination.profile.user.as_str();
    arguments.extend(["-T", "-l", user, "--"].map(OsString::from));
    arguments.push(destination.target.host.as_str().into());
    arguments
}

fn write_known_hosts(destination: &Destination<'_>) -> Result<Option<NamedTempFile>, SshError> {
    if destination.host_keys.is_empty() {
        return Ok(None);
    }
    let lines: Vec<String> = destination
        .host_keys
        .iter()
        .filter_map(|key| key.to_openssh().ok())
        .map(|key| format!("{HOST_KEY_ALIAS} {key}\n"))
        .collect();
    write_temporary("duffy-known-hosts-", &lines.concat()).map(Some)
}

/// Says why `ssh` failed, by what it printed.
fn explain(destination: &Destination<'_>, said: &str) -> SshError {
    let host = destination.target.name();
    let reason = one_line(said);
    let has = |texts: &[&str]| texts.iter().any(|text| said.contains(text));
    if has(&["Could not resolve hostname"]) {
        SshError::Resolve { host, reason }
    } else if has(&[
        "Connection refused",
        "No route to host",
        "Network is unreachable",
        "Connection timed out",
        "Operation timed out",
    ]) && has(&["connect to host"])
    {
        SshError::Connect { host, reason }
    } else if has(&[
        "Host key verification failed",
        "REMOTE HOST IDENTIFICATION HAS CHANGED",
    ]) || (!destination.host_keys.is_empty() && has(&["no matching host key type"]))
    {
        SshError::HostKey {
            host,
            reason: "its host key is another one".to_owned(),
        }
    } else if has(&["Permission denied (", "Too many authentication failures"]) {
        let files = destination.list_identity_files();
        let agent = if destination.identities_only() {
            ""
        } else {
            " and the agent's keys"
        };
        SshError::Auth {
            host,
            user: destination.profile.user.clone(),
            tried: format!("{files}{agent}"),
        }
    } else {
        destination.lost(said)
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use duffy_config::Ssh as Settings;

    use super::super::Target;
    use super::*;
    use crate::nodes::ssh::profile::Profile;

    #[test]
    fn only_before_its_start_ssh_cannot_have_reached_the_node() {
        let destination = Destination {
            target: &Target::default(),
            profile: &Profile::usual(Path::new("/")),
            host_keys: &[],
            settings: &Settings::default(),
            stage: &tokio::sync::watch::Sender::new("testing"),
        };
        let program = || "ssh".to_owned();
        let tail = String::new;
        for (error, own_fault) in [
            (
                ProcessError::NotFound {
                    program: program(),
                    remedy: "",
                },
                true,
            ),
            (
                ProcessError::Start {
                    program: program(),
                    reason: tail(),
                },
                true,
            ),
            (
                ProcessError::Io {
                    program: program(),
                    source: io::ErrorKind::Other.into(),
                },
                false,
            ),
            (ProcessError::Stopped, false),
            (
                ProcessError::Deadline {
                    program: program(),
                    after: Duration::ZERO,
                    tail: tail(),
                },
                false,
            ),
        ] {
            let explained = explain_no_output(&destination, &error);
            assert_eq!(
                explained.is_own_fault(),
                own_fault,
                "{error:?}: {explained:?}"
            );
        }
    }
}
