//! What a run is asked for, and what comes of it.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use thiserror::Error;

/// What to run, and within which bounds.
#[derive(Clone)]
pub struct Spec {
    /// A path, or a name to be looked up in `PATH`.
    pub program: OsString,
    /// Arguments after the program's name.
    pub args: Vec<OsString>,
    /// Set on top of this process's environment.
    pub env: Vec<(OsString, OsString)>,
    /// Taken out of this process's environment.
    pub env_remove: Vec<OsString>,
    /// Working directory; this process's own without it.
    pub cwd: Option<PathBuf>,
    /// Written to the program's standard input, which is then closed; `/dev/null` without it.
    pub stdin: Option<Vec<u8>>,
    /// The run is stopped when it takes longer.
    pub deadline: Duration,
    /// Time between TERM and KILL.
    pub grace: Duration,
    /// How many of the last lines of output are kept.
    pub tail_lines: usize,
    /// How many of the first bytes of standard output are kept; 0 for none.
    pub capture_stdout: usize,
    /// What to do when the program is missing; ends up in [`ProcessError::NotFound`].
    pub remedy: Option<String>,
}

impl Spec {
    /// A run with no arguments, nothing on standard input, one minute of time, five seconds of grace, forty lines kept.
    pub fn new(program: impl Into<OsString>) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            env: Vec::new(),
            env_remove: Vec::new(),
            cwd: None,
            stdin: None,
            deadline: Duration::from_mins(1),
            grace: Duration::from_secs(5),
            tail_lines: 40,
            capture_stdout: 0,
            remedy: None,
        }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<I: IntoIterator<Item: Into<OsString>>>(mut self, args: I) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Takes out an environment variable.
    #[must_use]
    pub fn env_remove(mut self, name: impl Into<OsString>) -> Self {
        self.env_remove.push(name.into());
        self
    }

    /// Sets the working directory.
    #[must_use]
    pub fn cwd(mut self, cwd: impl Into<PathBuf>) -> Self {
        self.cwd = Some(cwd.into());
        self
    }

    /// Sets what the program reads from its standard input.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = Some(bytes.into());
        self
    }

    /// Sets how long the run may take.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Sets the time between TERM and KILL.
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Sets how many of the last lines of output are kept.
    #[must_use]
    pub fn tail_lines(mut self, lines: usize) -> Self {
        self.tail_lines = lines;
        self
    }

    /// Sets how many of the first bytes of standard output are kept.
    #[must_use]
    pub fn capture_stdout(mut self, bytes: usize) -> Self {
        self.capture_stdout = bytes;
        self
    }

    /// Sets what a message about the missing program tells the reader to do.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// The program as a message shows it.
    pub(super) fn name(&self) -> String {
        self.program.to_string_lossy().into_owned()
    }
}

/// Says what runs, but neither environment nor input: they may hold secrets.
impl std::fmt::Debug for Spec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spec")
            .field("program", &self.program)
            .field("args", &self.args)
            .field("cwd", &self.cwd)
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

/// A program that ended by itself, well or not.
#[derive(Debug)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// The first bytes of its standard output, as many as [`Spec::capture_stdout`] allows.
    pub stdout: Vec<u8>,
    /// The last lines of standard output and error, as they came in: plain text, control characters removed.
    pub tail: String,
}

/// Why there is no [`Output`].
#[derive(Debug, Error)]
pub enum ProcessError {
    /// There is no such program.
    #[error("{program}: program not found; {remedy}")]
    NotFound {
        /// As it was asked for.
        program: String,
        /// What the operator can do.
        remedy: String,
    },
    /// The program, or the guard over it, could not be started.
    #[error("cannot start {program}: {reason}")]
    Start {
        /// As it was asked for.
        program: String,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// The program took too long and was stopped, with all that it had started.
    #[error(
        "{program} did not end within {after:?} and was stopped; see its last lines, or allow more time"
    )]
    Deadline {
        /// As it was asked for.
        program: String,
        /// The time that it had.
        after: Duration,
        /// Its last lines of output.
        tail: String,
    },
    /// It was stopped by the token, with all that it had started.
    #[error("stopped before it ended")]
    Stopped {
        /// Its last lines of output.
        tail: String,
    },
    /// The system failed while it ran.
    #[error("lost track of {program}: {source}")]
    Io {
        /// As it was asked for.
        program: String,
        /// The cause.
        source: io::Error,
    },
}
