//! What to run, and what came of it.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use thiserror::Error;

/// What to run, and within which limits.
#[derive(Clone)]
pub struct Spec {
    /// A path, or a name to look up in `PATH`.
    pub program: OsString,
    /// Arguments after the program's name.
    pub args: Vec<OsString>,
    /// Added to this process's environment.
    pub env: Vec<(OsString, OsString)>,
    /// Working directory; this process's own if none.
    pub cwd: Option<PathBuf>,
    /// Written to the program's standard input, which is then closed; `/dev/null` if none.
    pub stdin: Option<Vec<u8>>,
    /// The run is stopped when it takes longer.
    pub deadline: Duration,
    /// Time between TERM and KILL.
    pub grace: Duration,
    /// How many of the last lines of output are kept.
    pub tail_lines: usize,
    /// How many of the first bytes of standard output are kept; 0 for none.
    pub capture_stdout: usize,
    /// What to do when the program is missing, for [`ProcessError::NotFound`].
    pub remedy: &'static str,
}

impl Spec {
    /// A run with no arguments, no standard input, a minute of time, five seconds of grace, and forty lines kept.
    pub fn new(program: impl Into<OsString>) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            env: Vec::new(),
            cwd: None,
            stdin: None,
            deadline: Duration::from_mins(1),
            grace: Duration::from_secs(5),
            tail_lines: 40,
            capture_stdout: 0,
            remedy: "install it or correct the path to it",
        }
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

    /// The program as a message shows it.
    pub(super) fn name(&self) -> String {
        self.program.to_string_lossy().into_owned()
    }
}

/// A program that ended by itself, well or not.
#[derive(Debug)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// The first bytes of its standard output, at most [`Spec::capture_stdout`].
    pub stdout: Vec<u8>,
    /// The last lines of standard output and error, in the order in which they came: plain text, without control
    /// characters.
    pub tail: String,
}

/// Why there is no [`Output`].
#[derive(Debug, Error)]
pub enum ProcessError {
    /// There is no such program.
    #[error("{program}: program not found; {remedy}")]
    NotFound {
        /// As the caller named it.
        program: String,
        /// What the operator can do.
        remedy: &'static str,
    },
    /// The program, or the guard over it, could not be started.
    #[error("cannot start {program}: {reason}")]
    Start {
        /// As the caller named it.
        program: String,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// The program took too long and was stopped, with everything that it had started.
    #[error(
        "{program} did not end within {after:?} and was stopped; see its last lines, or allow more time"
    )]
    Deadline {
        /// As the caller named it.
        program: String,
        /// The time that it had.
        after: Duration,
        /// Its last lines of output.
        tail: String,
    },
    /// The token stopped it, with everything that it had started.
    #[error("stopped before it ended")]
    Stopped,
    /// The system could not say how the program ended.
    #[error("cannot wait for {program}: {source}")]
    Io {
        /// As the caller named it.
        program: String,
        /// The cause.
        source: io::Error,
    },
}
