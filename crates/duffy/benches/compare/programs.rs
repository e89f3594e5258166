//! Finds programs, and runs them as parts of a measurement.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::unistd::{Uid, User};

/// Returns a program in `PATH` or in the directories of the system's administrator.
pub fn find(name: &str) -> PathBuf {
    look_up(name)
        .unwrap_or_else(|| panic!("{name} is missing: run `make bench`, which installs it"))
}

/// Like [`find`], for a program that may be missing.
pub fn look_up(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let sshd = std::env::var_os("DUFFY_TEST_SSHD").filter(|_| name == "sshd");
    if let Some(sshd) = sshd {
        return Some(sshd.into());
    }
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/usr/local/sbin".into()])
        .map(|directory| directory.join(name))
        .find(|program| program.is_file())
}

/// Returns a program of PostgreSQL's server, for example `pgbench`.
pub fn of_postgres(name: &str) -> PathBuf {
    std::env::var_os("DUFFY_TEST_PG_BIN")
        .map(|directory| Path::new(&directory).join(name))
        .filter(|program| program.is_file())
        .unwrap_or_else(|| find(name))
}

/// Returns a program of the virtual environment with the Python original.
pub fn of_original(name: &str) -> PathBuf {
    let directory = std::env::var_os("DUFFY_BENCH_VENV");
    let directory = directory.expect("DUFFY_BENCH_VENV is not set: run `make bench`");
    Path::new(&directory).join("bin").join(name)
}

/// The name of the user who runs this.
pub fn user_name() -> String {
    let user = User::from_uid(Uid::effective()).unwrap();
    user.expect("the user who runs this has no name").name
}

/// Runs a command, which must succeed. Returns its stdout.
pub fn output_of(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
