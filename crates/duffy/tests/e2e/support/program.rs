//! A running program that a test started: its log, its signals, its end.

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

/// A program in a process group of its own, with its output in a file. Killed when dropped and when the
/// test's process dies; when the test fails, the end of the log is printed.
#[derive(Debug)]
pub struct Program {
    name: String,
    pid: Pid,
    log: PathBuf,
    last_signal: Signal,
    state: Arc<State>,
    /// Keeps the directory and the janitor for as long as the program may run.
    _scratch: Scratch,
}

#[derive(Debug, Default)]
struct State {
    status: Mutex<Option<ExitStatus>>,
    ended: Condvar,
}

impl Program {
    /// Starts `command`; its output goes to `NAME.log` in the scratch directory, after what is already there.
    pub fn start(scratch: &Scratch, name: &str, command: Command) -> Self {
        Self::start_ended_by(scratch, name, command, Signal::SIGKILL)
    }

    /// The same for a program that needs a gentler `signal` than KILL to clean up after itself.
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

    /// Starts a command whose output streams are the caller's business.
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
        let janitor = scratch.downgrade();
        std::thread::spawn(move || wait_for(child, pid, &janitor, &theirs));
        Self {
            name: name.to_owned(),
            pid: Pid::from_raw(pid),
            log,
            last_signal: signal,
            state,
            _scratch: scratch.clone(),
        }
    }

    /// Its process number, also that of its group.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    /// All that it has printed so far, on both streams.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Whether it has not ended yet.
    pub fn is_running(&self) -> bool {
        self.state.status.lock().unwrap().is_none()
    }

    /// Sends a signal to the program alone, unless it has ended.
    pub fn signal(&self, signal: Signal) {
        // Its number is its own while the lock is held: see `wait_for`.
        let status = self.state.status.lock().unwrap();
        if status.is_none() {
            signal::kill(self.pid, signal).unwrap();
        }
    }

    /// Asks it to end.
    pub fn terminate(&self) {
        self.signal(Signal::SIGTERM);
    }

    /// Kills it, and nothing that it has started, and waits until it is gone.
    pub fn kill9(&self) {
        self.signal(Signal::SIGKILL);
        self.wait_exit(Duration::from_secs(10));
    }

    /// Waits for its end; the exit code, 128 + n for signal n, as a shell says it. Fails when it runs on.
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

/// Reaps the program. Until it is reaped its number stays its own, so that is done under the lock that signals take.
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
                // A stopped program takes no signal but KILL.
                self.signal(Signal::SIGCONT);
                self.signal(signal);
                self.end(Duration::from_secs(5));
            }
        }
    }
}
