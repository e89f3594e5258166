//! The directory and the processes of a test. Both are removed when the test ends, even if it is killed.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, Weak};

const CLEANUP: &str = include_str!("cleanup.sh");

/// The environment variable that marks the processes of a test, also if their parents change.
pub const MARK: &str = "DUFFY_TEST_MARK";

/// The directory of a test, and its cleanup process: a shell that kills the processes and removes the directory when the pipe to it
/// closes. The pipe closes however the test ends: return, panic, kill -9.
///
/// `DUFFY_TEST_KEEP=1` keeps the directory with its logs and databases.
#[derive(Debug, Clone)]
pub struct Scratch(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    directory: PathBuf,
    mark: String,
    cleanup: Mutex<Option<(Child, ChildStdin)>>,
}

impl Scratch {
    /// Creates the directory, in the system's temporary directory, and starts the cleanup process.
    pub fn new(label: &str) -> Self {
        let directory = tempfile::Builder::new()
            .prefix(&format!("duffy-test-{label}-"))
            .tempdir()
            .unwrap();
        // PostgreSQL does not run as root: its user needs access to subdirectories.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o711)).unwrap();
        let directory = directory.keep();
        let mark = directory.file_name().unwrap().to_str().unwrap().to_owned();
        let keep = std::env::var_os("DUFFY_TEST_KEEP").is_some_and(|value| value != "0");
        let mut cleanup = Command::new("sh")
            .args(["-c", CLEANUP, "cleanup", &mark])
            .arg(&directory)
            .arg(if keep { "keep" } else { "remove" })
            .env_remove(MARK)
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the tests need a POSIX shell, `sh`");
        let pipe = cleanup.stdin.take().unwrap();
        Self(Arc::new(Inner {
            directory,
            mark,
            cleanup: Mutex::new(Some((cleanup, pipe))),
        }))
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.0.directory
    }

    /// A path in the directory.
    pub fn join(&self, name: &str) -> PathBuf {
        self.0.directory.join(name)
    }

    /// The value of [`MARK`] for processes of this test.
    pub fn mark(&self) -> &str {
        &self.0.mark
    }

    /// Returns the ids and command lines of all processes with the mark of this test.
    pub fn processes(&self) -> Vec<String> {
        let wanted = format!("{MARK}={}", self.mark()).into_bytes();
        let Ok(entries) = fs::read_dir("/proc") else {
            return Vec::new();
        };
        entries
            .flatten()
            .filter(|entry| entry.file_name().as_encoded_bytes()[0].is_ascii_digit())
            .filter_map(|entry| {
                let environ = fs::read(entry.path().join("environ")).ok()?;
                environ
                    .split(|byte| *byte == 0)
                    .any(|variable| variable == wanted)
                    .then_some(())?;
                let words = fs::read(entry.path().join("cmdline")).ok()?;
                let words = String::from_utf8_lossy(&words).replace('\0', " ");
                Some(format!(
                    "{} {}",
                    entry.file_name().to_string_lossy(),
                    words.trim_end()
                ))
            })
            .collect()
    }

    /// Lets the cleanup process end this process with `signal`, then KILL, when the test ends.
    pub(super) fn watch(&self, pid: i32, signal: &str) {
        self.send(&format!("watch {pid} {signal}\n"));
    }

    /// Returns a reference that does not keep the directory.
    pub(super) fn downgrade(&self) -> WeakScratch {
        WeakScratch(Arc::downgrade(&self.0))
    }

    fn send(&self, line: &str) {
        if let Some((_, pipe)) = self.0.cleanup.lock().unwrap().as_mut() {
            pipe.write_all(line.as_bytes())
                .expect("the cleanup process has died");
        }
    }
}

/// See [`Scratch::downgrade`].
#[derive(Debug)]
pub struct WeakScratch(Weak<Inner>);

impl WeakScratch {
    /// Tells the cleanup process that a process has ended: the system may use its id again.
    pub(super) fn forget(&self, pid: i32) {
        if let Some(inner) = self.0.upgrade() {
            Scratch(inner).send(&format!("forget {pid}\n"));
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Ok(mut cleanup) = self.cleanup.lock()
            && let Some((mut child, pipe)) = cleanup.take()
        {
            drop(pipe);
            child.wait().ok();
        }
    }
}
