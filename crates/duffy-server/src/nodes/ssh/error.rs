//! Why keys could not be put on a node or taken off it.

use std::time::Duration;

/// How many characters of a node's text an error contains at most.
const TEXT_LIMIT: usize = 600;

/// Why keys could not be put on a node or taken off it. Each message is one line.
#[derive(Debug, thiserror::Error)]
pub enum SshError {
    /// Settings, keys or ssh_config must be corrected; other nodes will most likely fail as well.
    #[error("{0}")]
    Config(String),
    /// The name has no address.
    #[error("cannot find the address of {host}: {reason}; check the node's name and the resolver")]
    Resolve {
        /// Name that was looked up.
        host: String,
        /// The resolver's answer.
        reason: String,
    },
    /// No connection could be made.
    #[error("cannot connect to {host}: {reason}; check that the node is up and runs an SSH server")]
    Connect {
        /// Node, and port if it is not the usual one.
        host: String,
        /// The system's answer.
        reason: String,
    },
    /// The node did not answer in time.
    #[error("{host} took more than {after:?}: timeout while {during}")]
    Timeout {
        /// Node.
        host: String,
        /// The time it had.
        after: Duration,
        /// What was being done.
        during: &'static str,
    },
    /// The node has another host key than the mechanism announced.
    #[error(
        "{host} is not the announced machine: {reason}; somebody may be in between, or ssh_host_keys is wrong"
    )]
    HostKey {
        /// Node.
        host: String,
        /// What it showed instead.
        reason: String,
    },
    /// No key was accepted.
    #[error(
        "{host} does not let {user} in with {tried}; put Duffy's public key into the node's authorized_keys"
    )]
    Auth {
        /// Node.
        host: String,
        /// User that Duffy tried to log in as.
        user: String,
        /// Identities that were tried.
        tried: String,
    },
    /// The connection ended before the command did, which may have done its work or not.
    #[error("lost the connection to {host} while {during}: {reason}")]
    Lost {
        /// Node.
        host: String,
        /// What was being done.
        during: &'static str,
        /// What is known of the cause.
        reason: String,
    },
    /// The node could not replace its `authorized_keys`, which is unchanged.
    #[error("{host}: {what} failed with {exit}: {stderr}")]
    Command {
        /// Node.
        host: String,
        /// What the command was for.
        what: &'static str,
        /// Exit status or signal.
        exit: String,
        /// The end of what the command wrote, in one line.
        stderr: String,
    },
    /// The node has a higher fence, from a later operation. Nothing was changed.
    #[error("{host} refuses this operation: its fence is {kept}, this operation has {fence}")]
    FencedOff {
        /// Node.
        host: String,
        /// The number of this work.
        fence: i64,
        /// The number that the node has.
        kept: i64,
    },
    /// The `ssh` program could not be started.
    #[error("cannot run ssh for {host}: {reason}")]
    Program {
        /// Node.
        host: String,
        /// What happened.
        reason: String,
    },
}

impl SshError {
    /// Whether the fault is Duffy's own and not the node's: no connection was begun, and other nodes would fail in the
    /// same way.
    pub fn is_own_fault(&self) -> bool {
        matches!(self, SshError::Config(_) | SshError::Program { .. })
    }
}

/// Puts what a node says on one line, without its beginning if it is too long.
pub(super) fn one_line(text: &str) -> String {
    let harmless = |line: &str| line.chars().filter(|c| !is_harmful(*c)).collect::<String>();
    let lines = text.lines().map(|line| harmless(line).trim().to_owned());
    let lines: Vec<_> = lines.filter(|line| !line.is_empty()).collect();
    let line = lines.join("; ");
    if line.is_empty() {
        return "it said nothing".to_owned();
    }
    let excess = line.chars().count().saturating_sub(TEXT_LIMIT);
    if excess == 0 {
        line
    } else {
        let rest: String = line.chars().skip(excess).collect();
        format!("… {rest}")
    }
}

/// Whether a character may control a terminal, or change the order of the text around it.
fn is_harmful(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nodes_say_becomes_one_harmless_line() {
        assert_eq!(one_line("a\r\n\n  b\x1b[31m\u{9b}\u{202e}\n"), "a; b[31m");
        assert_eq!(one_line("\n"), "it said nothing");
        let long = one_line(&format!("first {} last", "é".repeat(2000)));
        assert!(long.starts_with("… é") && long.ends_with("last"), "{long}");
        assert!(long.chars().count() <= TEXT_LIMIT + 2);
    }
}
