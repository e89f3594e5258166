//! The built binary: exit codes and both streams.
#![expect(clippy::unwrap_used, reason = "tests and their helpers")]
#![expect(clippy::disallowed_types, reason = "tests start programs")]

#[cfg(feature = "client")]
mod client;
mod config;
mod dev_shell;
mod features;
mod help;
mod legacy;
#[cfg(feature = "client")]
mod peer;
#[cfg(feature = "sqlite")]
mod setup_db;
mod usage;

use std::path::Path;
use std::process::{Command, Stdio};

/// Runs the binary, and formats exit code and streams for a snapshot.
fn run(dir: &Path, args: &[&str]) -> String {
    run_with(dir, args, &[])
}

fn run_with(dir: &Path, args: &[&str], env: &[(&str, &str)]) -> String {
    let output = duffy(dir)
        .args(args)
        .envs(env.iter().copied())
        .output()
        .unwrap();
    let code = output.status.code().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    format!("exit: {code}\n----- stdout\n{stdout}----- stderr\n{stderr}")
        .replace(env!("CARGO_PKG_VERSION"), "<version>")
}

/// Prepares the binary to run in a directory. It reads no configuration of the machine except `/etc/duffy`.
fn duffy(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_duffy"));
    command
        .env_clear()
        .env("HOME", dir)
        .env("XDG_CONFIG_HOME", dir)
        .env("COLUMNS", "100")
        .current_dir(dir)
        .stdin(Stdio::null());
    command
}
