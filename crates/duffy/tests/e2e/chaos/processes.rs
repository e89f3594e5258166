//! The processes of a run. Each is restarted when it has ended, like with a service manager.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::log::{Finding, Log};
use crate::support::{Duffy, Program, Proxy, eventually};

/// A process that ends earlier after its start failed to start, for example because the database was unavailable.
const START_TIMEOUT: Duration = Duration::from_secs(12);
/// How long a terminating process may wait for playbooks and requests. Then it gets a second signal.
const TERMINATE_TIMEOUT: Duration = Duration::from_secs(15);
/// The time limit for a terminating process.
const KILL_TIMEOUT: Duration = Duration::from_secs(45);

/// A process and its proxy to the database.
pub struct ManagedProcess {
    pub name: &'static str,
    pub proxy: Option<Proxy>,
    duffy: Duffy,
    arguments: Vec<String>,
    status: Status,
    started: Instant,
}

enum Status {
    /// Not running until this time.
    Down(Instant),
    Running(Program),
    /// Stopped by SIGSTOP until this time.
    Suspended(Program, Instant),
    /// Terminating since this time; it restarts after this delay.
    Terminating(Program, Instant, Duration),
}

impl ManagedProcess {
    pub fn new(
        name: &'static str,
        duffy: Duffy,
        arguments: Vec<String>,
        proxy: Option<Proxy>,
    ) -> Self {
        Self {
            name,
            proxy,
            duffy,
            arguments,
            status: Status::Down(Instant::now()),
            started: Instant::now(),
        }
    }

    /// Kills the process; it restarts after `down`. Returns false if it does not run.
    pub fn kill(&mut self, down: Duration) -> bool {
        let (Status::Running(program) | Status::Suspended(program, _)) = &self.status else {
            return false;
        };
        program.kill9();
        self.status = Status::Down(Instant::now() + down);
        true
    }

    /// Suspends the process.
    pub fn suspend(&mut self, time: Duration) -> bool {
        self.change(|status| match status {
            Status::Running(program) => {
                program.signal(Signal::SIGSTOP);
                Ok(Status::Suspended(program, Instant::now() + time))
            }
            other => Err(other),
        })
    }

    /// Terminates the process; it restarts `down` after its end.
    pub fn terminate(&mut self, down: Duration) -> bool {
        self.change(|status| match status {
            Status::Running(program) => {
                program.terminate();
                Ok(Status::Terminating(program, Instant::now(), down))
            }
            other => Err(other),
        })
    }

    fn change(&mut self, with: impl FnOnce(Status) -> Result<Status, Status>) -> bool {
        let old = std::mem::replace(&mut self.status, Status::Down(Instant::now()));
        let (status, changed) = match with(old) {
            Ok(new) => (new, true),
            Err(same) => (same, false),
        };
        self.status = status;
        changed
    }

    fn start(&mut self) {
        let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        self.started = Instant::now();
        self.status = Status::Running(self.duffy.spawn_named(self.name, &arguments));
    }

    /// Starts, resumes or kills the process if it is time, and reports unexpected exits.
    fn tick(&mut self, log: &Log) {
        let now = Instant::now();
        match &self.status {
            Status::Down(until) if now >= *until => self.start(),
            Status::Running(program) if !program.is_running() => {
                let code = program.wait_exit(Duration::ZERO);
                let name = self.name;
                if now - self.started < START_TIMEOUT && code == 1 {
                    log.count("process failed to start");
                } else {
                    log.report(Finding::new(format!(
                        "{name} exited on its own with {code}"
                    )));
                }
                self.status = Status::Down(now + Duration::from_secs(1));
            }
            Status::Suspended(_, until) if now >= *until => {
                self.change(|status| match status {
                    Status::Suspended(program, _) => {
                        program.signal(Signal::SIGCONT);
                        Ok(Status::Running(program))
                    }
                    other => Err(other),
                });
            }
            Status::Terminating(program, since, down) => {
                let waited = now - *since;
                if !program.is_running() {
                    let code = program.wait_exit(Duration::ZERO);
                    // Before a process handles the signal, the signal kills it.
                    if code != 0 && now - self.started > START_TIMEOUT {
                        let what = format!("{} exited with {code} after TERM", self.name);
                        log.report(Finding::new(what));
                    }
                    self.status = Status::Down(now + *down);
                } else if waited > KILL_TIMEOUT {
                    let what = format!("{} still runs after two TERM signals", self.name);
                    log.report(Finding::new(what));
                    program.kill9();
                } else if waited > TERMINATE_TIMEOUT
                    && waited < TERMINATE_TIMEOUT + Duration::from_millis(60)
                {
                    program.terminate();
                }
            }
            _ => {}
        }
    }
}

/// All processes of a run.
pub struct Processes {
    pub list: Vec<ManagedProcess>,
}

impl Processes {
    pub fn new(list: Vec<ManagedProcess>) -> Self {
        Self { list }
    }

    /// Calls [`ManagedProcess::tick`] of all processes. Call this often.
    pub fn tick(&mut self, log: &Log) {
        for process in &mut self.list {
            process.tick(log);
        }
    }

    /// Waits until all processes run. Inject no faults meanwhile.
    pub fn wait_for_all(&mut self, log: &Log) {
        for process in &mut self.list {
            if let Status::Suspended(_, until) | Status::Down(until) = &mut process.status {
                *until = Instant::now();
            }
        }
        eventually(KILL_TIMEOUT * 2, "all processes to run", || {
            self.tick(log);
            let missing = self.list.iter().find(|process| match &process.status {
                Status::Running(_) => process.started.elapsed() < Duration::from_secs(1),
                _ => true,
            });
            match missing {
                None => Ok(()),
                Some(process) => Err(process.name.to_owned()),
            }
        });
    }

    /// Kills all processes, so that their logs are complete.
    pub fn kill_all(&mut self) {
        for process in &mut self.list {
            process.kill(Duration::ZERO);
        }
    }
}
