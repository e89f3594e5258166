//! The built `duffy` command.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;

use super::program::Program;
use super::scratch::Scratch;

/// The time limit of a command that is not a server.
const COMMAND_DEADLINE: Duration = Duration::from_mins(2);

/// Runs the binary in a scratch directory, with its own home directory and without the developer's settings.
#[derive(Debug, Clone)]
pub struct Duffy {
    scratch: Scratch,
    config: Option<PathBuf>,
    env: Vec<(OsString, OsString)>,
}

/// The output of a command.
#[derive(Debug)]
pub struct Output {
    /// Its stdout.
    pub stdout: String,
    /// Its stderr.
    pub stderr: String,
    /// Its exit code; 128 + n if signal n killed it.
    pub code: i32,
}

impl Duffy {
    /// Creates the command without a configuration. `HOME` is `home` in the scratch directory.
    pub fn new(scratch: &Scratch) -> Self {
        fs::create_dir_all(scratch.join("home")).unwrap();
        Self {
            scratch: scratch.clone(),
            config: None,
            env: Vec::new(),
        }
    }

    /// Adds `-c PATH` before the arguments of every run.
    pub fn with_config(mut self, path: &Path) -> Self {
        self.config = Some(path.to_owned());
        self
    }

    /// Adds an environment variable.
    pub fn with_env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Runs the command to its end, for at most two minutes.
    pub fn run(&self, args: &[&str]) -> Output {
        let name = Self::next_name("run", args);
        let stdout = self.scratch.join(&format!("{name}.stdout"));
        let stderr = self.scratch.join(&format!("{name}.stderr"));
        let mut command = self.command(args);
        command
            .stdout(File::create(&stdout).unwrap())
            .stderr(File::create(&stderr).unwrap());
        let scratch = &self.scratch;
        let program = Program::launch(scratch, &name, stderr.clone(), command, Signal::SIGKILL);
        let code = program.wait_exit(COMMAND_DEADLINE);
        let text = |path| String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned();
        Output {
            stdout: text(stdout),
            stderr: text(stderr),
            code,
        }
    }

    /// Runs the command, which must succeed. Returns its stdout.
    pub fn succeed(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert_eq!(output.code, 0, "duffy {args:?}: {output:?}");
        output.stdout
    }

    /// Starts a server or worker. It ends when the returned value is dropped.
    pub fn spawn(&self, args: &[&str]) -> Program {
        Program::start(
            &self.scratch,
            &Self::next_name("server", args),
            self.command(args),
        )
    }

    /// Like [`Duffy::spawn`], with a log of this name. A restart appends to it.
    pub fn spawn_named(&self, name: &str, args: &[&str]) -> Program {
        Program::start(&self.scratch, name, self.command(args))
    }

    /// Returns a unique name for the logs of this run.
    fn next_name(kind: &str, args: &[&str]) -> String {
        static RUNS: AtomicU32 = AtomicU32::new(1);
        let number = RUNS.fetch_add(1, Ordering::Relaxed);
        let first = args
            .iter()
            .find(|arg| arg.chars().all(|c| c.is_ascii_lowercase() || c == '-'));
        format!(
            "duffy-{kind}-{number}{}",
            first.map(|arg| format!("-{arg}")).unwrap_or_default()
        )
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_duffy"));
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if ["DUFFY_", "XDG_", "SSH_", "ANSIBLE_", "RUST_LOG"]
                .iter()
                .any(|p| text.starts_with(p))
            {
                command.env_remove(&name);
            }
        }
        command.env("HOME", self.scratch.join("home"));
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        if let Some(config) = &self.config {
            command.arg("-c").arg(config);
        }
        command.args(args).current_dir(self.scratch.path());
        command
    }
}
