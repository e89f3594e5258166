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

/// How long a command may take that is not a server.
const COMMAND_DEADLINE: Duration = Duration::from_mins(2);

/// Runs the binary in a scratch directory, with a home of its own and nothing of the developer's settings.
#[derive(Debug, Clone)]
pub struct Duffy {
    scratch: Scratch,
    config: Option<PathBuf>,
    env: Vec<(OsString, OsString)>,
}

/// What a command that has ended left.
#[derive(Debug)]
pub struct Output {
    /// What it printed as data.
    pub stdout: String,
    /// What it said.
    pub stderr: String,
    /// Its exit code; 128 + n when signal n ended it.
    pub code: i32,
}

impl Duffy {
    /// The command without a configuration; `HOME` is `home` in the scratch directory.
    pub fn new(scratch: &Scratch) -> Self {
        fs::create_dir_all(scratch.join("home")).unwrap();
        Self {
            scratch: scratch.clone(),
            config: None,
            env: Vec::new(),
        }
    }

    /// The same with `-c PATH` before the arguments of every run.
    pub fn with_config(mut self, path: &Path) -> Self {
        self.config = Some(path.to_owned());
        self
    }

    /// The same with a variable in its environment.
    pub fn with_env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Runs it to its end, two minutes at most.
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

    /// Runs it to its end, which must be a good one; its standard output.
    pub fn succeed(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert_eq!(output.code, 0, "duffy {args:?}: {output:?}");
        output.stdout
    }

    /// Starts it as a server or worker; it ends with the value that this returns.
    pub fn spawn(&self, args: &[&str]) -> Program {
        Program::start(
            &self.scratch,
            &Self::next_name("server", args),
            self.command(args),
        )
    }

    /// The same with a log of this name, which goes on when it is started again.
    pub fn spawn_named(&self, name: &str, args: &[&str]) -> Program {
        Program::start(&self.scratch, name, self.command(args))
    }

    /// A name for the logs that tells this run from others.
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
