//! Finds the programs that the tests need.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// The root of the checkout.
pub fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .unwrap()
        .to_owned()
}

/// Returns `ansible-playbook`: `DUFFY_TEST_ANSIBLE`, else the one of `make test-deps`, else the one in `PATH`.
pub fn ansible_playbook() -> PathBuf {
    let ours = checkout().join("target/test-venv/bin/ansible-playbook");
    from_env("DUFFY_TEST_ANSIBLE")
        .or_else(|| ours.is_file().then_some(ours))
        .or_else(|| in_path("ansible-playbook"))
        .unwrap_or_else(|| missing("ansible-playbook", "DUFFY_TEST_ANSIBLE"))
}

/// Returns a program of the virtual environment that `make test-deps` creates.
pub fn python_program(name: &str) -> PathBuf {
    let ours = checkout().join("target/test-venv/bin/python");
    let python = from_env("DUFFY_TEST_PYTHON")
        .or_else(|| ours.is_file().then_some(ours))
        .unwrap_or_else(|| missing("Python for the tests", "DUFFY_TEST_PYTHON"));
    let program = python.with_file_name(name);
    if program.is_file() {
        program
    } else {
        missing(name, "DUFFY_TEST_PYTHON")
    }
}

/// Returns `sshd`: `DUFFY_TEST_SSHD`, else from the usual directories. sshd requires an absolute path.
pub fn sshd() -> PathBuf {
    from_env("DUFFY_TEST_SSHD")
        .or_else(|| in_path("sshd"))
        .or_else(|| first_file(&["/usr/sbin/sshd", "/usr/local/sbin/sshd", "/usr/bin/sshd"]))
        .unwrap_or_else(|| missing("sshd", "DUFFY_TEST_SSHD"))
}

/// Returns a client program of OpenSSH: `ssh`, `ssh-keygen`.
pub fn openssh(program: &str) -> PathBuf {
    in_path(program).unwrap_or_else(|| missing(program, "PATH"))
}

/// Returns the directory of PostgreSQL's server: `DUFFY_TEST_PG_BIN`, else the newest one of Debian's packages, else a directory
/// in `PATH`.
pub fn postgres_bin() -> PathBuf {
    let complete = |dir: &PathBuf| dir.join("initdb").is_file() && dir.join("postgres").is_file();
    if let Some(dir) = from_env("DUFFY_TEST_PG_BIN") {
        assert!(
            complete(&dir),
            "DUFFY_TEST_PG_BIN is {}, which does not contain initdb",
            dir.display()
        );
        return dir;
    }
    let mut packaged: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let version = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .filter(|(_, dir)| complete(dir))
        .collect();
    packaged.sort();
    packaged
        .pop()
        .map(|(_, dir)| dir)
        .or_else(|| path_directories().into_iter().find(complete))
        .unwrap_or_else(|| {
            missing(
                "PostgreSQL's server (initdb, postgres)",
                "DUFFY_TEST_PG_BIN",
            )
        })
}

fn from_env(variable: &str) -> Option<PathBuf> {
    let path = PathBuf::from(std::env::var_os(variable).filter(|value| !value.is_empty())?);
    assert!(
        path.exists(),
        "{variable} is {}, which does not exist: run `make test-deps`",
        path.display()
    );
    Some(path)
}

fn in_path(program: &str) -> Option<PathBuf> {
    path_directories()
        .into_iter()
        .map(|dir| dir.join(program))
        .find(|path| path.is_file())
}

fn path_directories() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(<OsStr as AsRef<OsStr>>::as_ref(&path)).collect()
}

fn first_file(paths: &[&str]) -> Option<PathBuf> {
    paths.iter().map(PathBuf::from).find(|path| path.is_file())
}

fn missing(what: &str, variable: &str) -> ! {
    panic!("{what} is missing. Run `make test-deps`, or set {variable}.")
}
