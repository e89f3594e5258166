//! The commands that a node runs: they install, remove or read the tenants' keys.
//!
//! `authorized_keys.sh` is the script of all three, and explains how it works and how it stops late commands. `build.rs`
//! puts it on one line.
//!
//! Root's login shell may be any shell, so the command is one line in single quotes, without what `csh` or `fish`
//! interpret there: no single quote, exclamation mark or backslash.

use super::SshError;

/// Begins the tenants' part of `authorized_keys`.
pub(super) const SEPARATOR: &str = "### DUFFY tenant credentials";

/// Begins the line after [`SEPARATOR`] that has the number of the last work on the node.
const FENCE: &str = "# duffy fence ";

/// A number with more digits is not Duffy's, and some shells cannot compare it.
const FENCE_DIGITS: u32 = 18;

const SCRIPT: &str = include_str!(concat!(env!("OUT_DIR"), "/authorized_keys.sh"));

/// How the command exits when another one has replaced the file since it began.
pub(super) const OVERTAKEN: u32 = 67;

/// How the command exits when the file has a higher number.
pub(super) const FENCED_OFF: u32 = 68;

/// More than this of the file is not read.
pub(super) const READ_LIMIT: usize = 1 << 20;

/// A command for a node, and what it reads.
pub(super) struct Script {
    /// What it does, for messages.
    pub what: &'static str,
    /// The command line.
    pub command: String,
    /// Its whole standard input.
    pub input: Vec<u8>,
    /// How many bytes of its standard output are kept.
    pub output_limit: usize,
}

impl Script {
    /// Replaces the tenants' part by these keys, unless the node has a higher number than this.
    pub fn install(tenant_keys: &str, fence: Option<i64>) -> Result<Self, SshError> {
        if tenant_keys.contains('\0') {
            return Err(SshError::Config(
                "the tenant's SSH key has a null byte in it; set the tenant's key again".to_owned(),
            ));
        }
        if tenant_keys.starts_with(FENCE) {
            return Err(SshError::Config(format!(
                "the tenant's SSH key begins with {FENCE:?}, as Duffy's own notes do; set the tenant's key \
                 again"
            )));
        }
        let input = format!("{tenant_keys}\n").into_bytes();
        Ok(Self {
            what: "installing keys",
            command: command("install", &number(fence)?, input.len()),
            input,
            output_limit: 0,
        })
    }

    /// Removes the tenants' part except the number, unless the node has a higher number than this.
    pub fn remove(fence: Option<i64>) -> Result<Self, SshError> {
        Ok(Self {
            what: "removing keys",
            command: command("remove", &number(fence)?, 0),
            input: Vec::new(),
            output_limit: 0,
        })
    }

    /// Does nothing. It shows that a login works.
    pub fn log_in() -> Self {
        Self {
            what: "logging in",
            command: "true".to_owned(),
            input: Vec::new(),
            output_limit: 0,
        }
    }

    /// Prints the file, or one byte more than [`READ_LIMIT`] of a file that is too long.
    pub fn read() -> Self {
        Self {
            what: "reading keys",
            command: command("read", "", READ_LIMIT + 1),
            input: Vec::new(),
            output_limit: READ_LIMIT + 1,
        }
    }
}

/// The tenants' keys in an `authorized_keys`, without the number.
pub(super) fn tenant_part(content: &str) -> Option<String> {
    let mut lines = content
        .lines()
        .skip_while(|line| !line.contains(SEPARATOR))
        .skip(1)
        .peekable();
    lines.next_if(|line| {
        line.strip_prefix(FENCE).is_some_and(|number| {
            !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
        })
    });
    let keys = lines.collect::<Vec<_>>().join("\n").trim().to_owned();
    (!keys.is_empty()).then_some(keys)
}

/// The number that the node has, in the message of a command that was fenced off.
pub(super) fn number_in(message: &str) -> Option<i64> {
    let (_, rest) = message.split_once(FENCE)?;
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

/// The number as the script takes it.
fn number(fence: Option<i64>) -> Result<String, SshError> {
    match fence {
        None => Ok(String::new()),
        Some(number) if (0..10_i64.pow(FENCE_DIGITS)).contains(&number) => Ok(number.to_string()),
        Some(number) => Err(SshError::Config(format!(
            "{number} is not a valid number for work on a node; check the database"
        ))),
    }
}

/// The command line; the script says what the variables are for.
fn command(work: &str, number: &str, size: usize) -> String {
    format!(
        "sh -c 'work={work} number={number} size={size} digits={FENCE_DIGITS} \
         separator=\"{SEPARATOR}\" fence=\"{FENCE}\"; {SCRIPT}'"
    )
}

#[cfg(test)]
#[path = "script_tests.rs"]
mod tests;
