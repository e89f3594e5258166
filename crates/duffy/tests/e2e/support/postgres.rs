//! A PostgreSQL cluster for one test.

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::{Gid, Uid, User};

use super::program::Program;
use super::scratch::Scratch;
use super::{eventually, free_port, tools};

/// A running cluster with an empty database `duffy`. It is stopped and removed when dropped.
///
/// It is a copy of a template in `target/tmp`: this takes 0.1 s, and initdb half a second. It does not sync its files: its data
/// survive a crash of the server, but not of the host.
#[derive(Debug)]
pub struct Postgres {
    scratch: Scratch,
    account: Account,
    port: u16,
    settings: &'static [&'static str],
    server: Option<Program>,
}

impl Postgres {
    /// Starts a cluster on a free port of 127.0.0.1.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Like [`Postgres::start`], with other settings of the server (`fsync=on`).
    pub fn start_with(settings: &'static [&'static str]) -> Self {
        let scratch = Scratch::new("pg");
        let account = Account::for_server();
        let template = template(&account);
        copy_tree(&template, &scratch.join("data"));
        account.make_directory(&scratch.join("socket"));
        let mut postgres = Self {
            scratch,
            account,
            port: 0,
            settings,
            server: None,
        };
        // Another process may take the port before the start.
        for _ in 0..5 {
            postgres.port = free_port();
            if postgres.try_start() {
                return postgres;
            }
        }
        panic!("PostgreSQL does not start:\n{}", postgres.log())
    }

    /// The URL of the database `duffy`, for the configuration.
    pub fn url(&self) -> String {
        self.url_of("duffy")
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The URL of a database of this cluster.
    pub fn url_of(&self, database: &str) -> String {
        format!("postgresql://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// The directory of its Unix socket.
    pub fn socket_directory(&self) -> PathBuf {
        self.scratch.join("socket")
    }

    /// The log of the server.
    pub fn log(&self) -> String {
        fs::read_to_string(self.scratch.join("postgres.log")).unwrap_or_default()
    }

    /// Creates another empty database and returns its URL.
    pub fn create_database(&self, name: &str) -> String {
        self.psql(&format!("CREATE DATABASE \"{name}\""));
        self.url_of(name)
    }

    /// Runs SQL in the database `duffy`. Returns rows as lines, with columns separated by `|`. Panics if the SQL fails.
    pub fn psql(&self, sql: &str) -> String {
        self.run_psql(|psql| psql.arg("-c").arg(sql))
    }

    /// Runs an SQL file, for example a dump, in the database `duffy`.
    pub fn load_file(&self, path: &Path) {
        self.run_psql(|psql| psql.arg("-f").arg(path));
    }

    /// Stops the server like a crash: connections break, and the next start recovers.
    pub fn stop_immediately(&mut self) {
        self.stop(Signal::SIGQUIT);
    }

    /// Starts a stopped server again, on the same port.
    pub fn start_again(&mut self) {
        assert!(self.server.is_none(), "the server is running");
        assert!(
            self.try_start(),
            "PostgreSQL does not start again:\n{}",
            self.log()
        );
    }

    /// Shuts the server down, which closes all connections, and starts it again.
    pub fn restart(&mut self) {
        self.stop(Signal::SIGINT);
        self.start_again();
    }

    fn stop(&mut self, signal: Signal) {
        let server = self.server.take().expect("the server is not running");
        server.signal(signal);
        server.wait_exit(Duration::from_secs(20));
    }

    /// Starts the server and waits until it accepts connections. Returns false if it ends instead.
    fn try_start(&mut self) -> bool {
        let mut command = Command::new(tools::postgres_bin().join("postgres"));
        command.arg("-D").arg(self.scratch.join("data"));
        command.arg("-p").arg(self.port.to_string());
        command.arg("-k").arg(self.scratch.join("socket"));
        for setting in [
            "listen_addresses=127.0.0.1",
            "max_connections=200",
            "shared_buffers=16MB",
            // With files in the data directory, no shared memory remains on the host.
            "dynamic_shared_memory_type=mmap",
            "fsync=off",
            "full_page_writes=off",
        ]
        .iter()
        .chain(self.settings)
        {
            command.args(["-c", setting]);
        }
        self.account.apply(&mut command, self.scratch.path());
        let server = Program::start_ended_by(&self.scratch, "postgres", command, Signal::SIGQUIT);
        let pid_file = self.scratch.join("data/postmaster.pid");
        let ready = eventually(Duration::from_mins(1), "PostgreSQL to be ready", || {
            let text = fs::read_to_string(&pid_file).unwrap_or_default();
            let mut lines = text.lines();
            let ours = lines
                .next()
                .is_some_and(|pid| pid == server.pid().to_string());
            // The eighth line is the server's state.
            if ours && lines.nth(6).is_some_and(|state| state.trim() == "ready") {
                Ok(true)
            } else if server.is_running() {
                Err(format!("state file {text:?}, log {:?}", self.log()))
            } else {
                Ok(false)
            }
        });
        self.server = ready.then_some(server);
        ready
    }

    fn run_psql(&self, arguments: impl FnOnce(&mut Command) -> &mut Command) -> String {
        let mut psql = Command::new(tools::postgres_bin().join("psql"));
        psql.args([
            "-X",
            "-q",
            "-A",
            "-t",
            "-v",
            "ON_ERROR_STOP=1",
            "-d",
            &self.url(),
        ]);
        let output = arguments(&mut psql).stdin(Stdio::null()).output().unwrap();
        assert!(
            output.status.success(),
            "{psql:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout)
            .unwrap()
            .trim_end()
            .to_owned()
    }
}

/// The user of the server. PostgreSQL does not run as root: then it is the user `postgres` or `nobody`.
#[derive(Debug)]
struct Account(Option<(Uid, Gid)>);

impl Account {
    fn for_server() -> Self {
        if !Uid::effective().is_root() {
            return Self(None);
        }
        let user = ["postgres", "nobody"]
            .into_iter()
            .find_map(|name| User::from_name(name).ok().flatten())
            .expect("PostgreSQL does not run as root, and there is no user postgres or nobody");
        Self(Some((user.uid, user.gid)))
    }

    fn apply(&self, command: &mut Command, directory: &Path) {
        if let Some((uid, gid)) = self.0 {
            command.uid(uid.as_raw()).gid(gid.as_raw());
        }
        // The user may have no access to the current directory, and the server may not know the locale.
        command
            .current_dir(directory)
            .env("LC_ALL", "C")
            .env_remove("PGDATA");
    }

    fn make_directory(&self, path: &Path) {
        fs::create_dir(path).unwrap();
        fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
        if let Some((uid, gid)) = self.0 {
            chown(path, Some(uid.as_raw()), Some(gid.as_raw())).unwrap();
        }
    }

    /// A name for what this user owns.
    fn label(&self) -> String {
        self.0
            .map_or_else(Uid::effective, |(uid, _)| uid)
            .to_string()
    }
}

/// Returns the data directory to copy. Creates it if this version of PostgreSQL has none yet.
fn template(account: &Account) -> PathBuf {
    let bin = tools::postgres_bin();
    let version = output_of(Command::new(bin.join("postgres")).arg("--version"));
    // "postgres (PostgreSQL) 17.2 (Debian 17.2-1)"
    let version = version.split_whitespace().nth(2).unwrap_or("unknown");
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR"));
    fs::create_dir_all(kept).unwrap();
    let template = kept.join(format!("postgres-{version}-{}", account.label()));

    // Tests run concurrently in separate processes: one creates the template, the others wait for it.
    let lock = File::create(template.with_added_extension("lock")).unwrap();
    lock.lock().unwrap();
    if !template.is_dir() {
        let scratch = Scratch::new("pg-template");
        let home = scratch.join("home");
        account.make_directory(&home);
        initialize(account, &bin, &home.join("data"));
        // A rename is atomic: a template that exists is complete.
        let incoming = template.with_added_extension("incoming");
        fs::remove_dir_all(&incoming).ok();
        copy_tree(&home.join("data"), &incoming);
        fs::rename(&incoming, &template).unwrap();
    }
    template
}

fn initialize(account: &Account, bin: &Path, data: &Path) {
    let home = data.parent().unwrap();
    let mut initdb = Command::new(bin.join("initdb"));
    initdb.arg("-D").arg(data);
    initdb.args([
        "-U",
        "postgres",
        "-A",
        "trust",
        "-E",
        "UTF8",
        "--locale=C",
        "--no-sync",
    ]);
    account.apply(&mut initdb, home);
    output_of(&mut initdb);

    let mut single = Command::new(bin.join("postgres"));
    single
        .args(["--single", "-F", "-D"])
        .arg(data)
        .arg("template1");
    account.apply(&mut single, home);
    let single = single
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = single.spawn().unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(b"CREATE DATABASE duffy;\n")
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "PostgreSQL cannot create the database `duffy`: {stderr}"
    );
}

fn copy_tree(from: &Path, to: &Path) {
    output_of(Command::new("cp").arg("-a").arg(from).arg(to));
}

fn output_of(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}
