//! A run's own directory: variables in, events out. Only this user may read it.
//!
//! It is removed after the run. A process that is killed leaves it, with all variables, and the next process removes it. A
//! lock on the directory says that it is in use. The system releases the lock of a process that dies, and the programs of
//! the run do not inherit it.

use std::ffi::OsString;
use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use tempfile::TempDir;

const PREFIX: &str = "duffy-ansible-";
const CALLBACK: &str = include_str!("duffy_events.py");
/// A sweep may remove a new directory before it is locked, but hardly so many times in a row.
const TRIES: usize = 10;

/// The directory of a run, which is removed on drop.
pub(super) struct Workdir {
    dir: TempDir,
    _lock: File,
}

impl Workdir {
    pub(super) fn prepare(vars: &str) -> io::Result<Self> {
        let workdir = Self::make(&std::env::temp_dir())?;
        let path = workdir.dir.path().as_os_str();
        if path.as_encoded_bytes().contains(&b':') {
            return Err(io::Error::other(
                "ansible cannot load callbacks from a path with a colon in it",
            ));
        }
        let create = |path: &Path, content: &[u8]| {
            OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(path)?
                .write_all(content)
        };
        let callbacks = workdir.callbacks();
        create(&workdir.vars(), vars.as_bytes())?;
        DirBuilder::new().mode(0o700).create(&callbacks)?;
        create(&callbacks.join("duffy_events.py"), CALLBACK.as_bytes())?;
        Ok(workdir)
    }

    fn make(parent: &Path) -> io::Result<Self> {
        for _ in 0..TRIES {
            let dir = tempfile::Builder::new()
                .prefix(PREFIX)
                .permissions(Permissions::from_mode(0o700))
                .tempdir_in(parent)?;
            let Ok(lock) = open_directory(dir.path()) else {
                continue;
            };
            match lock.try_lock() {
                Ok(()) if !is_at(&lock, dir.path()) => {}
                Err(TryLockError::WouldBlock) => {}
                // If the file system has no locks, no sweep removes the directory either.
                Ok(()) | Err(TryLockError::Error(_)) => return Ok(Self { dir, _lock: lock }),
            }
        }
        Err(io::Error::other(
            "another process removes each new directory",
        ))
    }

    pub(super) fn vars(&self) -> PathBuf {
        self.dir.path().join("vars.yml")
    }

    pub(super) fn callbacks(&self) -> PathBuf {
        self.dir.path().join("callbacks")
    }

    pub(super) fn events(&self) -> PathBuf {
        self.dir.path().join("events")
    }
}

/// Removes what killed processes of this user left in a temporary directory. Returns the number of directories.
pub fn sweep_workdirs(parent: &Path) -> usize {
    let entries = match std::fs::read_dir(parent) {
        Ok(entries) => entries,
        Err(error) => {
            tracing::debug!(directory = %parent.display(), %error, "cannot look for directories of old playbook runs");
            return 0;
        }
    };
    let is_ours = |name: OsString| name.as_encoded_bytes().starts_with(PREFIX.as_bytes());
    let ours = entries.flatten().filter(|entry| is_ours(entry.file_name()));
    ours.filter(|entry| remove_if_left(&entry.path())).count()
}

fn remove_if_left(path: &Path) -> bool {
    let Ok(lock) = open_directory(path) else {
        return false;
    };
    let own = lock
        .metadata()
        .is_ok_and(|meta| meta.uid() == nix::unistd::geteuid().as_raw());
    if !own || lock.try_lock().is_err() || !is_at(&lock, path) {
        return false;
    }
    let removed = std::fs::remove_dir_all(path);
    if let Err(error) = &removed {
        tracing::warn!(directory = %path.display(), %error, "cannot remove the directory of an old playbook run");
    }
    removed.is_ok()
}

/// Opens a directory, but no other file and no symbolic link.
fn open_directory(path: &Path) -> io::Result<File> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
    OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits())
        .open(path)
}

/// Whether an open directory still has this path. It may have been removed before it was locked.
fn is_at(directory: &File, path: &Path) -> bool {
    let id = |meta: std::fs::Metadata| (meta.dev(), meta.ino());
    match (directory.metadata(), path.symlink_metadata()) {
        (Ok(open), Ok(named)) => id(open) == id(named),
        _ => false,
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_types, reason = "tests start programs")]
mod tests {
    use std::process::Command;

    use super::*;

    fn names(parent: &Path) -> Vec<std::ffi::OsString> {
        let entries = std::fs::read_dir(parent).unwrap();
        entries.map(|entry| entry.unwrap().file_name()).collect()
    }

    #[test]
    fn what_is_in_use_or_no_workdir_stays() {
        let parent = tempfile::tempdir().unwrap();
        let at = |name: &str| parent.path().join(name);
        let used = Workdir::make(parent.path()).unwrap();
        let left = Workdir::make(parent.path()).unwrap();
        std::fs::write(left.vars(), "secret").unwrap();
        let Workdir { dir, _lock: lock } = left;
        let left = dir.keep();
        std::fs::create_dir(at("other")).unwrap();
        std::os::unix::fs::symlink("other", at("duffy-ansible-link")).unwrap();
        std::fs::write(at("duffy-ansible-file"), "").unwrap();
        if nix::unistd::geteuid().is_root() {
            std::fs::create_dir(at("duffy-ansible-foreign")).unwrap();
            std::os::unix::fs::chown(at("duffy-ansible-foreign"), Some(12_345), None).unwrap();
        }
        assert_eq!(sweep_workdirs(parent.path()), 0);
        drop(lock);
        let before = names(parent.path()).len();
        assert_eq!(sweep_workdirs(parent.path()), 1);
        assert!(!left.exists());
        assert!(used.dir.path().exists());
        assert_eq!(names(parent.path()).len(), before - 1);
    }

    /// Directories are made during a sweep. Each one that was made exists and stays.
    #[test]
    fn a_sweep_takes_no_new_directory() {
        let parent = tempfile::tempdir().unwrap();
        let done = std::sync::atomic::AtomicBool::new(false);
        let relaxed = std::sync::atomic::Ordering::Relaxed;
        std::thread::scope(|scope| {
            let sweeping = scope.spawn(|| {
                let mut swept = 0;
                while !done.load(relaxed) {
                    swept += sweep_workdirs(parent.path());
                }
                swept
            });
            let mut kept = Vec::new();
            for _ in 0..500 {
                // On a busy machine the sweep may win ten times in a row, and then there is no directory.
                kept.extend(Workdir::make(parent.path()));
            }
            done.store(true, relaxed);
            sweeping.join().unwrap();
            assert!(kept.len() > 400, "{}", kept.len());
            for workdir in &kept {
                assert!(workdir.dir.path().exists());
            }
        });
    }

    /// The programs of a run continue when their worker is killed, but do not keep the lock.
    #[test]
    fn programs_do_not_inherit_the_lock() {
        let parent = tempfile::tempdir().unwrap();
        let workdir = Workdir::make(parent.path()).unwrap();
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let Workdir { dir, _lock: lock } = workdir;
        let _left = dir.keep();
        drop(lock);
        let swept = sweep_workdirs(parent.path());
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(swept, 1);
    }
}
