//! The processes of a run, and what keeps them running: each is started again when it has ended, as a service manager
//! would.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::record::{Finding, Record};
use crate::support::{Duffy, Program, Proxy, eventually};

/// A process that ends sooner after its start than this could not start: the database was away, say.
const COULD_NOT_START: Duration = Duration::from_secs(12);
/// What playbooks and requests may take that a process waits for, and when it is told a second time.
const PATIENCE: Duration = Duration::from_secs(15);
/// By then it must have ended.
const NO_PATIENCE: Duration = Duration::from_secs(45);

/// One process and its way to the database.
pub struct Post {
    pub name: &'static str,
    pub proxy: Option<Proxy>,
    duffy: Duffy,
    arguments: Vec<String>,
    status: Status,
    started: Instant,
}

enum Status {
    /// To be started then.
    Down(Instant),
    Runs(Program),
    /// Stopped by SIGSTOP until then.
    Sleeps(Program, Instant),
    /// Told to end then; to be started so long after its end.
    Ends(Program, Instant, Duration),
}

impl Post {
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

    /// Kills it, to be started again after `down`. False when it does not run, so that nothing was done.
    pub fn kill(&mut self, down: Duration) -> bool {
        let (Status::Runs(program) | Status::Sleeps(program, _)) = &self.status else {
            return false;
        };
        program.kill9();
        self.status = Status::Down(Instant::now() + down);
        true
    }

    /// Stops it in the middle of what it does.
    pub fn freeze(&mut self, time: Duration) -> bool {
        self.change(|status| match status {
            Status::Runs(program) => {
                program.signal(Signal::SIGSTOP);
                Ok(Status::Sleeps(program, Instant::now() + time))
            }
            other => Err(other),
        })
    }

    /// Asks it to end, to be started again so long after its end.
    pub fn terminate(&mut self, down: Duration) -> bool {
        self.change(|status| match status {
            Status::Runs(program) => {
                program.terminate();
                Ok(Status::Ends(program, Instant::now(), down))
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
        self.status = Status::Runs(self.duffy.spawn_named(self.name, &arguments));
    }

    /// Does what is due.
    fn tick(&mut self, record: &Record) {
        let now = Instant::now();
        match &self.status {
            Status::Down(until) if now >= *until => self.start(),
            Status::Runs(program) if !program.is_running() => {
                let code = program.wait_exit(Duration::ZERO);
                let name = self.name;
                if now - self.started < COULD_NOT_START && code == 1 {
                    record.count("process could not start");
                } else {
                    record.find(Finding::new(format!("{name} ended by itself with {code}")));
                }
                self.status = Status::Down(now + Duration::from_secs(1));
            }
            Status::Sleeps(_, until) if now >= *until => {
                self.change(|status| match status {
                    Status::Sleeps(program, _) => {
                        program.signal(Signal::SIGCONT);
                        Ok(Status::Runs(program))
                    }
                    other => Err(other),
                });
            }
            Status::Ends(program, told, down) => {
                let waited = now - *told;
                if !program.is_running() {
                    let code = program.wait_exit(Duration::ZERO);
                    // A process that is told to end before it listens for that ends by the signal.
                    if code != 0 && now - self.started > COULD_NOT_START {
                        let what = format!("{}, told to end, ended with {code}", self.name);
                        record.find(Finding::new(what));
                    }
                    self.status = Status::Down(now + *down);
                } else if waited > NO_PATIENCE {
                    let what = format!("{}, told to end twice, runs on", self.name);
                    record.find(Finding::new(what));
                    program.kill9();
                } else if waited > PATIENCE && waited < PATIENCE + Duration::from_millis(60) {
                    program.terminate();
                }
            }
            _ => {}
        }
    }
}

/// All processes.
pub struct Crew {
    pub posts: Vec<Post>,
}

impl Crew {
    pub fn new(posts: Vec<Post>) -> Self {
        Self { posts }
    }

    /// Does what is due: to be called often.
    pub fn tick(&mut self, record: &Record) {
        for post in &mut self.posts {
            post.tick(record);
        }
    }

    /// Waits until all run again. No faults may come meanwhile.
    pub fn muster(&mut self, record: &Record) {
        for post in &mut self.posts {
            if let Status::Sleeps(_, until) | Status::Down(until) = &mut post.status {
                *until = Instant::now();
            }
        }
        eventually(NO_PATIENCE * 2, "all processes to run", || {
            self.tick(record);
            let missing = self.posts.iter().find(|post| match &post.status {
                Status::Runs(_) => post.started.elapsed() < Duration::from_secs(1),
                _ => true,
            });
            match missing {
                None => Ok(()),
                Some(post) => Err(post.name.to_owned()),
            }
        });
    }

    /// Ends all, so that their logs say the last word.
    pub fn dismiss(&mut self) {
        for post in &mut self.posts {
            post.kill(Duration::ZERO);
        }
    }
}
