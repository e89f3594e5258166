//! A program that a test started: its log, its signals, its exit.

use std::fs::{self, File};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use nix::sys::signal::{self, Signal};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

use super::scratch::{MARK, Scratch, WeakScratch};

/// A program in its own process group, with its output in a file. It is killed when dropped and when the process of the test dies. If the
/// test fails, the end of the log is printed.
#[derive(Debug)]
pub struct Program {
    name: String,
    pid: Pid,
    log: PathBuf,
    last_signal: Signal,
    state: Arc<State>,
    /// Keeps the directory and the cleanup process while the program can run.
    _scratch: Scratch,
}

#[derive(Debug, Default)]
struct State {
    status: Mutex<Option<ExitStatus>>,
    ended: Condvar,
}

impl Program {
    /// Starts `command`. Appends its output to `NAME.log` in the scratch directory.
    pub fn start(scratch: &Scratch, name: &str, command: Command) -> Self {
        Self::start_ended_by(scratch, name, command, Signal::SIGKILL)
    }

    /// Like [`Program::start`], for a program that needs a `signal` other than KILL to clean up.
    pub fn start_ended_by(
        scratch: &Scratch,
        name: &str,
        mut command: Command,
        signal: Signal,
    ) -> Self {
        let log = scratch.join(&format!("{name}.log"));
        let file = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .unwrap();
        command.stdout(file.try_clone().unwrap()).stderr(file);
        Self::launch(scratch, name, log, command, signal)
    }

    /// Starts a command. The caller sets its output streams.
    pub(super) fn launch(
        scratch: &Scratch,
        name: &str,
        log: PathBuf,
        mut command: Command,
        signal: Signal,
    ) -> Self {
        let child = command
            .process_group(0)
            .env(MARK, scratch.mark())
            .stdin(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {name} ({command:?}): {error}"));
        let pid = i32::try_from(child.id()).unwrap();
        scratch.watch(pid, signal.as_str().trim_start_matches("SIG"));
        let state = Arc::new(State::default());
        let theirs = Arc::clone(&state);
        let cleanup = scratch.downgrade();
        std::thread::spawn(move || wait_for(child, pid, &cleanup, &theirs));
        Self {
            name: name.to_owned(),
            pid: Pid::from_raw(pid),
            log,
            last_signal: signal,
            state,
            _scratch: scratch.clone(),
        }
    }

    /// Its process id, which is also the id of its group.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    /// Its output so far, of both streams.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Whether it still runs.
    pub fn is_running(&self) -> bool {
        self.state.status.lock().unwrap().is_none()
    }

    /// Sends a signal to the program only, unless it has exited.
    pub fn signal(&self, signal: Signal) {
        // The system does not reuse the process id while the lock is held: see `wait_for`.
        let status = self.state.status.lock().unwrap();
        if status.is_none() {
            signal::kill(self.pid, signal).unwrap();
        }
    }

    /// Sends TERM.
    pub fn terminate(&self) {
        self.signal(Signal::SIGTERM);
    }

    /// Kills the program, but not its children, and waits for its exit.
    pub fn kill9(&self) {
        self.signal(Signal::SIGKILL);
        self.wait_exit(Duration::from_secs(10));
    }

    /// Waits for its exit. Returns the exit code, or 128 + n for signal n, like a shell. Panics after the timeout.
    pub fn wait_exit(&self, within: Duration) -> i32 {
        let Some(status) = self.end(within) else {
            panic!(
                "{} still runs after {within:?}. Its log ends:\n{}",
                self.name,
                self.tail()
            )
        };
        status
            .code()
            .unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
    }

    fn end(&self, within: Duration) -> Option<ExitStatus> {
        let status = self.state.status.lock().unwrap();
        *self
            .state
            .ended
            .wait_timeout_while(status, within, |status| status.is_none())
            .unwrap()
            .0
    }

    fn tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }
}

/// Reaps the program. The system can reuse its process id afterwards, so this holds the lock that `signal` takes.
fn wait_for(mut child: Child, pid: i32, scratch: &WeakScratch, state: &State) {
    waitid(
        Id::Pid(Pid::from_raw(pid)),
        WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT,
    )
    .ok();
    let mut status = state.status.lock().unwrap();
    scratch.forget(pid);
    *status = Some(child.wait().unwrap());
    state.ended.notify_all();
}

impl Drop for Program {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "---- {} (process {}), end of its log:\n{}",
                self.name,
                self.pid,
                self.tail()
            );
        }
        for signal in [self.last_signal, Signal::SIGKILL] {
            if self.is_running() {
                // A stopped program receives only KILL.
                self.signal(Signal::SIGCONT);
                self.signal(signal);
                self.end(Duration::from_secs(5));
            }
        }
    }
}
