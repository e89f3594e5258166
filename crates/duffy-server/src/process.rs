//! The one place where processes start: playbooks, programs of mechanisms, the OpenSSH client.
//!
//! Each run is a process group of its own with a deadline and a stop token. Its output is read all the time, and the
//! last lines are kept for the error. A group alone does not contain a playbook: ansible's workers and its ssh clients
//! start sessions of their own. So each run has a *guard*, a small shell script next to it (`process/guard.sh`), which ends
//! everything that belongs to the run. The guard acts when the pipe to it closes before the word `done` went through
//! it. This one rule covers a stop, the deadline, a dropped future and the death of this process by SIGKILL.
#![expect(clippy::disallowed_types, reason = "processes start here")]

mod excerpt;
mod spec;

use std::ffi::OsStr;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::{ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::future::{FusedFuture as _, FutureExt as _};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use excerpt::{Excerpt, Stream};
pub use spec::{Output, ProcessError, Spec};

/// The script of the guard; it explains itself.
const GUARD: &str = include_str!("process/guard.sh");
/// The environment variable by which the guard finds what belongs to a run.
const MARK: &str = "DUFFY_RUN_ID";
/// How long the guard tries KILL after the grace, and some time more for a busy machine.
const GUARD_MARGIN: Duration = Duration::from_secs(15);
/// Output of an ended program is read until none came for this long …
const LINGER_QUIET: Duration = Duration::from_millis(50);
/// … but not for longer than this, because what the program left running may write to the pipe for ever.
const LINGER_MOST: Duration = Duration::from_secs(2);

/// Looks a program up in the way in which it is started: a path as it is, a name in `PATH`. `None` unless it is a file
/// that somebody may execute.
pub fn find_program(name: &OsStr) -> Option<PathBuf> {
    let executable = |path: &Path| {
        use std::os::unix::fs::PermissionsExt as _;
        path.metadata()
            .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    let paths = if name.as_encoded_bytes().contains(&b'/') {
        vec![name.into()]
    } else if name.is_empty() {
        return None;
    } else {
        let directories = std::env::var_os("PATH")?;
        let paths = std::env::split_paths(&directories).map(|dir| dir.join(name));
        paths.collect::<Vec<PathBuf>>()
    };
    paths
        .into_iter()
        .filter_map(|path| std::path::absolute(path).ok())
        .find(|path| executable(path))
}

/// Runs a program to its end, its deadline or its stop. A program that ends with a bad status gives an [`Output`] too.
///
/// When the future is dropped, or this process dies, everything that belongs to the run is ended as well.
pub async fn run(spec: Spec, stop: &CancellationToken) -> Result<Output, ProcessError> {
    if stop.is_cancelled() {
        return Err(ProcessError::Stopped);
    }
    let started = Instant::now();
    let mut guard = Guard::start(&spec)?;
    let mut child = start(&spec, &guard)?;
    let pid = child.id();
    debug!(program = %spec.name(), pid, "started");
    if let Some(pid) = pid {
        guard.tell(&format!("pid {pid}\n")).await;
    }

    let excerpt = Mutex::new(Excerpt::new(spec.capture_stdout, spec.tail_lines));
    let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let draining = async {
        tokio::join!(
            feed(pipes.0, spec.stdin.as_deref()),
            drain(pipes.1, Stream::Out, &excerpt),
            drain(pipes.2, Stream::Err, &excerpt),
        );
    };
    let mut draining = pin!(draining.fuse());
    let mut deadline = pin!(sleep(spec.deadline));
    let end = loop {
        tokio::select! {
            biased;
            status = child.wait() => break End::Exit(status.map_err(|source| ProcessError::Io {
                program: spec.name(),
                source,
            })?),
            () = stop.cancelled() => break End::Stop,
            () = &mut deadline => break End::Deadline,
            () = &mut draining => {}
        }
    };
    match &end {
        End::Exit(status) if status.signal().is_none() => guard.dismiss().await,
        // Killed by a signal, it had no chance to end its workers.
        End::Exit(_) | End::Stop | End::Deadline => {
            let mut ending = pin!(end_run(&mut child, pid, guard, spec.grace));
            loop {
                tokio::select! {
                    () = &mut ending => break,
                    () = &mut draining => {}
                }
            }
        }
    }
    let lingering = Instant::now();
    while !draining.is_terminated() && lingering.elapsed() < LINGER_MOST {
        let before = lock(&excerpt).seen;
        let drained = timeout(LINGER_QUIET, &mut draining).await.is_ok();
        if !drained && lock(&excerpt).seen == before {
            break;
        }
    }

    let (stdout, tail) = std::mem::take(&mut *lock(&excerpt)).into_parts();
    debug!(program = %spec.name(), pid, duration_ms = started.elapsed().as_millis() as u64, "ended: {end:?}");
    match end {
        End::Exit(status) => Ok(Output {
            status,
            stdout,
            tail,
        }),
        End::Stop => Err(ProcessError::Stopped),
        End::Deadline => Err(ProcessError::Deadline {
            program: spec.name(),
            after: spec.deadline,
            tail,
        }),
    }
}

#[derive(Debug)]
enum End {
    Exit(ExitStatus),
    Stop,
    Deadline,
}

fn lock(excerpt: &Mutex<Excerpt>) -> MutexGuard<'_, Excerpt> {
    excerpt.lock().unwrap_or_else(PoisonError::into_inner)
}

fn start(spec: &Spec, guard: &Guard) -> Result<Child, ProcessError> {
    let fail = |reason: String| ProcessError::Start {
        program: spec.name(),
        reason,
    };
    // Otherwise a missing directory looks like a missing program.
    if let Some(cwd) = &spec.cwd
        && !cwd.is_dir()
    {
        return Err(fail(format!(
            "there is no directory {}; create it or correct the path",
            cwd.display()
        )));
    }
    // Absolute, because a relative path would count from the directory of the run.
    let program = find_program(&spec.program).ok_or_else(|| ProcessError::NotFound {
        program: spec.name(),
        remedy: spec.remedy,
    })?;
    let input = spec.stdin.as_ref();
    let mut command = Command::new(&program);
    command
        .args(&spec.args)
        .process_group(0)
        .stdin(input.map_or_else(Stdio::null, |_| Stdio::piped()))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .envs(spec.env.iter().map(|(name, value)| (name, value)))
        .env(MARK, &guard.id);
    if let Some(cwd) = &spec.cwd {
        command.current_dir(cwd);
    }
    command.spawn().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => fail(format!(
            "the interpreter in the first line of {} is missing; install the program again",
            program.display()
        )),
        io::ErrorKind::PermissionDenied => fail(format!(
            "this user may not execute {}; correct its permissions",
            program.display()
        )),
        _ => fail(error.to_string()),
    })
}

/// Lets the guard end the run, and waits until that is done.
async fn end_run(child: &mut Child, pid: Option<u32>, guard: Guard, grace: Duration) {
    let kill_group = || {
        if let Some(pid) = pid.and_then(|pid| i32::try_from(pid).ok()) {
            // Fails only if the group has ended already.
            let _ended = killpg(Pid::from_raw(pid), Signal::SIGKILL);
        }
    };
    let ending = async {
        if !guard.trigger().await {
            warn!(
                pid,
                "parts of a stopped program could not be ended; they may run as another user"
            );
            kill_group();
        }
        if let Err(error) = child.wait().await {
            error!(pid, "cannot wait for the stopped program: {error}");
        }
    };
    if timeout(grace + GUARD_MARGIN, ending).await.is_err() {
        error!(
            pid,
            "a stopped program does not end; killing its process group"
        );
        kill_group();
    }
}

/// A shell script that ends a run when its pipe closes; see `process/guard.sh`.
struct Guard {
    id: String,
    /// The shell. Its standard input is the pipe, which also closes when somebody waits for the shell.
    child: Child,
}

impl Guard {
    /// Starts the guard. The program, which carries its id, starts after it, and so never runs without one.
    fn start(spec: &Spec) -> Result<Self, ProcessError> {
        let id = uuid::Uuid::new_v4().to_string();
        let fifths = spec.grace.as_millis().div_ceil(200);
        let child = Command::new("/bin/sh")
            .args([
                "-c",
                GUARD,
                "duffy-guard",
                &format!("{MARK}={id}"),
                &fifths.to_string(),
            ])
            .process_group(0)
            .current_dir("/")
            .env_remove(MARK)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| ProcessError::Start {
                program: spec.name(),
                reason: format!("cannot start the guard over it with /bin/sh: {error}"),
            })?;
        Ok(Self { id, child })
    }

    async fn tell(&mut self, line: &str) {
        if let Some(pipe) = &mut self.child.stdin
            && let Err(error) = pipe.write_all(line.as_bytes()).await
        {
            warn!("the guard over a program is gone: {error}");
        }
    }

    /// Ends the guard, because the program ended by itself.
    async fn dismiss(mut self) {
        self.tell("done\n").await;
        if timeout(GUARD_MARGIN, self.child.wait()).await.is_err() {
            warn!("the guard over an ended program does not end");
        }
    }

    /// Lets the guard end the run. True if nothing of the run is left.
    async fn trigger(mut self) -> bool {
        self.child.wait().await.is_ok_and(|status| status.success())
    }
}

async fn feed(pipe: Option<ChildStdin>, input: Option<&[u8]>) {
    if let (Some(mut pipe), Some(input)) = (pipe, input)
        && let Err(error) = pipe.write_all(input).await
    {
        // A program need not read all of its input.
        debug!("input not taken: {error}");
    }
}

/// Reads a stream to its end, and keeps little of it.
async fn drain(pipe: Option<impl AsyncRead + Unpin>, stream: Stream, excerpt: &Mutex<Excerpt>) {
    let Some(mut pipe) = pipe else { return };
    let mut buffer = vec![0; 16 * 1024];
    loop {
        match pipe.read(&mut buffer).await {
            Ok(0) => return,
            Ok(read) => lock(excerpt).push(stream, &buffer[..read]),
            Err(error) => {
                debug!("output lost: {error}");
                return;
            }
        }
    }
}
