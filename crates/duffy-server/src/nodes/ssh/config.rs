//! Asks `ssh -G` what ssh_config says about a host, no more often than needed.

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tempfile::NamedTempFile;
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use super::SshError;
use super::error::one_line;
use super::profile::Profile;
use super::survey::{Class, Survey};
use crate::process::{self, Spec};

const SYSTEM_CONFIG: &str = "/etc/ssh/ssh_config";
/// `Match exec` and name lookups may take some time.
const DEADLINE: Duration = Duration::from_secs(20);
/// The number of answers that are remembered.
const MEMORY: usize = 16 * 1024;

/// Reads ssh_config, and remembers what it says.
#[derive(Debug)]
pub(super) struct ConfigReader {
    home: PathBuf,
    /// The files that count, with the directories of their relative paths.
    files: Vec<(PathBuf, PathBuf)>,
    /// The `ssh` program, if it is installed.
    pub program: Option<PathBuf>,
    known: Mutex<Known>,
}

type Answer = Arc<OnceCell<Arc<Profile>>>;

#[derive(Debug)]
struct Known {
    survey: Survey,
    answers: HashMap<Class, Answer>,
}

impl ConfigReader {
    pub fn new(config_file: Option<PathBuf>, program: Option<PathBuf>) -> Result<Self, SshError> {
        let home = home_directory()?;
        let user_directory = home.join(".ssh");
        let files = match config_file {
            Some(file) => {
                std::fs::File::open(&file).map_err(|error| {
                    SshError::Config(format!(
                        "cannot read the ssh_config {}: {error}; correct ssh.config-file",
                        file.display()
                    ))
                })?;
                let file = std::path::absolute(&file).unwrap_or(file);
                vec![(file, user_directory)]
            }
            None => vec![
                (user_directory.join("config"), user_directory),
                (SYSTEM_CONFIG.into(), "/etc/ssh".into()),
            ],
        };
        let survey = Survey::of(&files, &home);
        Ok(Self {
            home,
            files,
            program,
            known: Mutex::new(Known {
                survey,
                answers: HashMap::new(),
            }),
        })
    }

    /// What ssh_config says about a host now.
    pub async fn profile_for(&self, host: &str) -> Result<Arc<Profile>, SshError> {
        let (Some(program), Some(answer)) = (&self.program, self.recall(host)) else {
            return Ok(Arc::new(Profile::usual(&self.home)));
        };
        let ask = async || self.ask(program, host).await.map(Arc::new);
        answer.get_or_try_init(ask).await.cloned()
    }

    /// The cell for the answer about a host, a new one if the files have changed. `None` if nothing in the
    /// files matters.
    fn recall(&self, host: &str) -> Option<Answer> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.survey.is_stale() {
            known.survey = Survey::of(&self.files, &self.home);
            known.answers.clear();
        }
        let class = known.survey.class_of(host)?;
        if known.answers.len() >= MEMORY {
            known.answers.clear();
        }
        Some(Arc::clone(known.answers.entry(class).or_default()))
    }

    /// Asks `ssh -G` about a host.
    async fn ask(&self, program: &Path, host: &str) -> Result<Profile, SshError> {
        // The first value of an option counts, so root is the user only where no file says otherwise. Plain
        // `ssh -G` prints the service user's own name both where a file has it and where none has a name.
        let includes = self
            .files
            .iter()
            .map(|(file, _)| format!("Include \"{}\"\n", file.display()));
        let text = includes.collect::<String>() + "Host *\n  User root\n";
        // It is written each time, because temporary directories are cleaned up.
        let question = write_temporary("duffy-ssh-config-", &text)?;
        let spec = Spec {
            deadline: DEADLINE,
            grace: Duration::from_secs(1),
            tail_lines: 5,
            capture_stdout: 256 * 1024,
            ..Spec::new(program)
                .args(["-G", "-F"])
                .args([question.path()])
                .args(["--", host])
        };
        let output = process::run(spec, &CancellationToken::new())
            .await
            .map_err(|error| SshError::Program {
                host: host.to_owned(),
                reason: error.to_string(),
            })?;
        if !output.status.success() {
            return Err(SshError::Config(format!(
                "ssh cannot use its configuration for {host}: {}; correct ssh_config",
                one_line(&output.tail)
            )));
        }
        let printed = String::from_utf8_lossy(&output.stdout);
        Ok(Profile::parse(&printed, host, &self.home))
    }
}

/// The service user's home as `ssh` sees it: from the user database, not from `$HOME`.
pub(super) fn home_directory() -> Result<PathBuf, SshError> {
    let uid = nix::unistd::getuid();
    let user = nix::unistd::User::from_uid(uid).ok().flatten();
    user.map(|user| user.dir)
        .or_else(|| std::env::var_os("HOME").map(PathBuf::from))
        .ok_or_else(|| {
            SshError::Config(format!(
                "user {uid} has no home directory, and $HOME is not set; set it, or add the user"
            ))
        })
}

/// Writes a temporary file for the `ssh` program.
pub(super) fn write_temporary(prefix: &str, text: &str) -> Result<NamedTempFile, SshError> {
    let written = tempfile::Builder::new()
        .prefix(prefix)
        .tempfile()
        .and_then(|mut file| file.write_all(text.as_bytes()).map(|()| file));
    written.map_err(|error| {
        SshError::Config(format!(
            "cannot write a temporary file in {}: {error}",
            std::env::temp_dir().display()
        ))
    })
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A reader of one file, whose `ssh` counts how often it is started.
    fn reader(content: &str) -> (tempfile::TempDir, ConfigReader) {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("config");
        std::fs::write(&config, content).unwrap();
        let real = process::find_program(OsStr::new("ssh"))
            .expect("openssh-client is installed; run `make test-deps`");
        let program = directory.path().join("ssh");
        let script = format!(
            "#!/bin/sh\necho \"$3\" >> {}/count\nexec {} \"$@\"\n",
            directory.path().display(),
            real.display()
        );
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let reader = ConfigReader::new(Some(config), Some(program)).unwrap();
        (directory, reader)
    }

    fn count(directory: &tempfile::TempDir) -> usize {
        std::fs::read_to_string(directory.path().join("count"))
            .map_or(0, |questions| questions.lines().count())
    }

    #[tokio::test]
    async fn ssh_is_not_asked_when_the_files_say_nothing() {
        let (directory, reader) = reader("Host *\n  HashKnownHosts yes\n");
        let profile = reader.profile_for("node").await.unwrap();
        assert_eq!(*profile, Profile::usual(&reader.home));
        assert_eq!(count(&directory), 0);
    }

    #[tokio::test]
    async fn ssh_is_asked_once_for_hosts_that_are_configured_alike() {
        let (directory, reader) =
            reader("Host gate\n  User me\n  Port 2200\nHost *\n  IdentityFile /k\n");
        let hosts: Vec<String> = (0..40).map(|n| format!("node-{n}")).collect();
        let asked = hosts.iter().map(|host| reader.profile_for(host));
        for profile in futures::future::join_all(asked).await {
            let profile = profile.unwrap();
            assert_eq!((profile.user.as_str(), profile.port), ("root", 22));
            assert_eq!(profile.identity_files, [PathBuf::from("/k")]);
            assert_eq!(profile.host_name, None);
        }
        assert_eq!(count(&directory), 1);
        let gate = reader.profile_for("gate").await.unwrap();
        assert_eq!((gate.user.as_str(), gate.port), ("me", 2200));
        assert_eq!(count(&directory), 2);
    }

    #[tokio::test]
    async fn the_service_users_own_name_is_told_from_no_name() {
        let name = nix::unistd::User::from_uid(nix::unistd::getuid())
            .unwrap()
            .unwrap()
            .name;
        let (_directory, reader) =
            reader(&format!("Host a\n  User {name}\nHost *\n  User other\n"));
        assert_eq!(reader.profile_for("a").await.unwrap().user, name);
        assert_eq!(reader.profile_for("b").await.unwrap().user, "other");
    }

    #[tokio::test]
    async fn changed_files_count_at_once() {
        let (directory, reader) = reader("User one\n");
        assert_eq!(reader.profile_for("n").await.unwrap().user, "one");
        std::fs::write(directory.path().join("config"), "User another\n").unwrap();
        assert_eq!(reader.profile_for("n").await.unwrap().user, "another");
    }

    #[tokio::test]
    async fn a_clean_up_of_the_temporary_directory_does_no_harm() {
        let (directory, reader) = reader("Host a\n  User one\nHost b\n  User two\n");
        assert_eq!(reader.profile_for("a").await.unwrap().user, "one");
        let asked = std::fs::read_to_string(directory.path().join("count")).unwrap();
        let question = Path::new(asked.trim());
        assert!(question.starts_with(std::env::temp_dir()), "{asked:?}");
        let _ = std::fs::remove_file(question);
        assert_eq!(reader.profile_for("b").await.unwrap().user, "two");
    }

    #[tokio::test]
    async fn a_broken_file_is_named() {
        let (_directory, reader) = reader("User x\nNonsense y\n");
        let error = reader.profile_for("n").await.unwrap_err().to_string();
        assert!(
            error.contains("onsense") && !error.contains('\n'),
            "{error}"
        );
        let missing = ConfigReader::new(Some("/nowhere/config".into()), None).unwrap_err();
        assert!(missing.to_string().contains("/nowhere/config"), "{missing}");
    }
}
