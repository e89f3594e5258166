//! A directory and the processes of one test, both gone when it ends, also when it is killed.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, Weak};

const JANITOR: &str = include_str!("janitor.sh");

/// The variable by which a test's processes are known, wherever they have moved in the process tree.
pub const MARK: &str = "DUFFY_TEST_MARK";

/// A test's directory and its janitor: a shell that kills and removes what the test leaves, once
/// the pipe to it closes. A pipe closes whatever becomes of the test: return, panic, kill -9.
///
/// `DUFFY_TEST_KEEP=1` keeps the directory, for a look at logs and databases.
#[derive(Debug, Clone)]
pub struct Scratch(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    directory: PathBuf,
    mark: String,
    janitor: Mutex<Option<(Child, ChildStdin)>>,
}

impl Scratch {
    /// Makes the directory, in the system's temporary directory, and starts the janitor.
    pub fn new(label: &str) -> Self {
        let directory = tempfile::Builder::new()
            .prefix(&format!("duffy-test-{label}-"))
            .tempdir()
            .unwrap();
        // PostgreSQL refuses to run as root: its user must be able to pass through.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o711)).unwrap();
        let directory = directory.keep();
        let mark = directory.file_name().unwrap().to_str().unwrap().to_owned();
        let keep = std::env::var_os("DUFFY_TEST_KEEP").is_some_and(|value| value != "0");
        let mut janitor = Command::new("sh")
            .args(["-c", JANITOR, "janitor", &mark])
            .arg(&directory)
            .arg(if keep { "keep" } else { "remove" })
            .env_remove(MARK)
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a POSIX shell, `sh`, is needed to run these tests");
        let orders = janitor.stdin.take().unwrap();
        Self(Arc::new(Inner {
            directory,
            mark,
            janitor: Mutex::new(Some((janitor, orders))),
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

    /// What a process of this test has in its environment as [`MARK`].
    pub fn mark(&self) -> &str {
        &self.0.mark
    }

    /// The command lines of all living processes with this test's mark, however far from their parents.
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

    /// Tells the janitor of a program to end with `signal` (then KILL) when the test ends.
    pub(super) fn watch(&self, pid: i32, signal: &str) {
        self.order(&format!("watch {pid} {signal}\n"));
    }

    /// A reference that does not keep the directory.
    pub(super) fn downgrade(&self) -> WeakScratch {
        WeakScratch(Arc::downgrade(&self.0))
    }

    fn order(&self, line: &str) {
        if let Some((_, orders)) = self.0.janitor.lock().unwrap().as_mut() {
            orders
                .write_all(line.as_bytes())
                .expect("the test's janitor is gone");
        }
    }
}

/// See [`Scratch::downgrade`].
#[derive(Debug)]
pub struct WeakScratch(Weak<Inner>);

impl WeakScratch {
    /// Tells the janitor that a program has ended: its number may soon be another's.
    pub(super) fn forget(&self, pid: i32) {
        if let Some(inner) = self.0.upgrade() {
            Scratch(inner).order(&format!("forget {pid}\n"));
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Ok(mut janitor) = self.janitor.lock()
            && let Some((mut child, orders)) = janitor.take()
        {
            drop(orders);
            child.wait().ok();
        }
    }
}
