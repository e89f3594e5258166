//! What the commands do to a home, in each shell that is here.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use tokio_util::sync::CancellationToken;

use super::*;
use crate::process::{self, Output, Spec};

async fn run(home: &Path, command: &str, input: &[u8]) -> Output {
    let spec = Spec {
        stdin: Some(input.to_owned()),
        ..Spec::new("/bin/sh").args(["-c", command]).env("HOME", home)
    };
    process::run(spec, &CancellationToken::new()).await.unwrap()
}

/// A home with this `authorized_keys`, and what is in its `.ssh` afterwards.
struct Home(tempfile::TempDir);

impl Home {
    fn with(content: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join(".ssh")).unwrap();
        fs::write(home.path().join(".ssh/authorized_keys"), content).unwrap();
        Self(home)
    }

    fn content(&self) -> String {
        let files = fs::read_dir(self.0.path().join(".ssh")).unwrap();
        assert_eq!(files.count(), 1, "something was left behind");
        self.text()
    }

    fn text(&self) -> String {
        fs::read_to_string(self.0.path().join(".ssh/authorized_keys")).unwrap()
    }

    async fn install(&self, keys: &str) {
        let script = Script::install(keys, None).unwrap();
        let output = run(self.0.path(), &script.command, &script.input).await;
        assert!(output.status.success(), "{output:?}");
    }

    async fn remove(&self) {
        let script = Script::remove(None).unwrap();
        let output = run(self.0.path(), &script.command, b"").await;
        assert!(output.status.success(), "{output:?}");
    }
}

#[tokio::test]
async fn what_comes_before_the_line_is_kept_to_the_byte() {
    for own in [
        "",
        "own key\n",
        "\n\n# c\n\tkey\r\n",
        "a\\nb $HOME `id` 'x'\n",
    ] {
        let home = Home::with(own);
        home.install("one\ntwo").await;
        assert_eq!(home.content(), format!("{own}{SEPARATOR}\none\ntwo\n"));
        home.install("three").await;
        assert_eq!(home.content(), format!("{own}{SEPARATOR}\nthree\n"));
        home.remove().await;
        assert_eq!(home.content(), own);
        home.remove().await;
        assert_eq!(home.content(), own);
    }
}

#[tokio::test]
async fn a_last_line_without_an_end_gets_one() {
    let home = Home::with("own");
    home.remove().await;
    assert_eq!(home.content(), "own");
    home.install("key").await;
    assert_eq!(home.content(), format!("own\n{SEPARATOR}\nkey\n"));
    home.remove().await;
    assert_eq!(home.content(), "own\n");
}

#[tokio::test]
async fn a_line_that_holds_the_separator_begins_the_tenants_part() {
    let home = Home::with(&format!("own\n#{SEPARATOR} and more\nleft\n"));
    home.install("key").await;
    assert_eq!(home.content(), format!("own\n{SEPARATOR}\nkey\n"));
}

#[tokio::test]
async fn input_that_was_cut_short_changes_nothing() {
    let home = Home::with("own\n");
    let script = Script::install("a key that is long", None).unwrap();
    for count in [0, 10, script.input.len() - 1] {
        let output = run(home.0.path(), &script.command, &script.input[..count]).await;
        assert_eq!(output.status.code(), Some(65), "{output:?}");
        assert!(output.tail.contains("connection broke"), "{output:?}");
        assert_eq!(home.content(), "own\n");
    }
}

#[tokio::test]
async fn a_late_installation_does_not_undo_a_removal() {
    let home = Home::with("own\n");
    let script = Script::install("key", None).unwrap();
    // Stops where it has read the keys, and goes on when the removal is done.
    let go = home.0.path().join("go");
    let wait = format!("until [ -e {} ]; do :; done; exec 7>&-", go.display());
    let slow = script.command.replace("exec 7>&-", &wait);
    assert_ne!(slow, script.command);
    let late = run(home.0.path(), &slow, &script.input);
    let removal = async {
        files_in(&home, 2).await;
        let output = run(home.0.path(), &Script::remove(None).unwrap().command, b"").await;
        fs::write(&go, "").unwrap();
        output
    };
    let (late, removal) = tokio::join!(late, removal);
    assert!(removal.status.success(), "{removal:?}");
    assert_eq!(late.status.code(), Some(67), "{late:?}");
    assert!(late.tail.contains("meanwhile"), "{late:?}");
    assert_eq!(home.content(), "own\n");
}

#[tokio::test]
async fn what_cannot_be_done_is_said() {
    let home = tempfile::tempdir().unwrap();
    let install = Script::install("key", None).unwrap();
    let output = run(home.path(), &install.command, &install.input).await;
    assert_eq!(output.status.code(), Some(65), "{output:?}");
    assert!(
        output
            .tail
            .contains("authorized_keys: there is no such file"),
        "{output:?}"
    );
    let output = run(home.path(), &Script::remove(None).unwrap().command, b"").await;
    assert!(output.status.success(), "{output:?}");

    fs::create_dir_all(home.path().join(".ssh/authorized_keys")).unwrap();
    let output = run(home.path(), &Script::remove(None).unwrap().command, b"").await;
    assert_eq!(output.status.code(), Some(65), "{output:?}");

    // Without a home nothing can be said about keys.
    let output = run(Path::new(""), &Script::remove(None).unwrap().command, b"").await;
    assert!(!output.status.success(), "{output:?}");
}

#[tokio::test]
async fn links_are_followed_and_modes_kept() {
    let home = Home::with("");
    let link = home.0.path().join(".ssh/authorized_keys");
    let file = home.0.path().join("keys");
    fs::rename(&link, &file).unwrap();
    symlink("../keys", &link).unwrap();
    for mode in [0o640, 0o400] {
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        home.install("key").await;
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        let now = fs::metadata(&file).unwrap().permissions().mode() & 0o7777;
        assert_eq!(now, mode);
        assert_eq!(home.content(), format!("{SEPARATOR}\nkey\n"));
        home.remove().await;
        assert_eq!(home.content(), "");
    }
    fs::remove_file(&file).unwrap();
    home.remove().await;
}

#[test]
fn no_login_shell_finds_anything_to_interpret() {
    let key = "ssh-ed25519 AAAA '; rm -rf / #";
    let scripts = [
        Script::install(key, Some(1)).unwrap(),
        Script::remove(Some(1)).unwrap(),
        Script::read(),
    ];
    for script in scripts {
        let inner = script
            .command
            .strip_prefix("sh -c '")
            .and_then(|rest| rest.strip_suffix('\''))
            .unwrap();
        assert!(!inner.contains(['\'', '!', '\\', '\n']), "{inner}");
        assert!(!inner.contains("rm -rf /"), "{inner}");
        assert!(inner.is_ascii());
    }
}

#[test]
fn keys_that_no_node_could_take_are_refused() {
    for keys in ["a\0b", "# duffy fence 9\nkey"] {
        assert!(Script::install(keys, None).is_err());
    }
    for number in [-1, i64::MAX] {
        assert!(Script::install("key", Some(number)).is_err());
        assert!(Script::remove(Some(number)).is_err());
    }
}

/// Programs to run the commands with: all that a search path has, or only some.
struct Surroundings {
    name: &'static str,
    path: String,
    _programs: tempfile::TempDir,
}

/// Shells that nodes have, and a node without `flock`.
async fn all_surroundings() -> Vec<Surroundings> {
    let usual = std::env::var("PATH").unwrap();
    let mut all = Vec::new();
    for name in ["dash", "bash", "busybox", "mksh", "without flock"] {
        let programs = tempfile::tempdir().unwrap();
        let link = |from: &str, to: &str| {
            let program = process::find_program(from.as_ref())
                .unwrap_or_else(|| panic!("{from} is not installed: run make test-deps"));
            symlink(program, programs.path().join(to)).unwrap();
        };
        let only = programs.path().display().to_string();
        let path = match name {
            "busybox" => {
                link("busybox", "busybox");
                let install = Spec::new(programs.path().join("busybox"))
                    .args(["--install", "-s"])
                    .args([programs.path()]);
                let installed = process::run(install, &CancellationToken::new()).await;
                assert!(installed.unwrap().status.success());
                only
            }
            "without flock" => {
                for name in ["sh", "chmod", "cp", "head", "mv", "readlink", "rm"] {
                    link(name, name);
                }
                only
            }
            shell => {
                link(shell, "sh");
                format!("{only}:{usual}")
            }
        };
        all.push(Surroundings {
            name,
            path,
            _programs: programs,
        });
    }
    all
}

impl Surroundings {
    async fn run(&self, home: &Home, script: &Script) -> Output {
        let spec = Spec {
            stdin: Some(script.input.clone()),
            capture_stdout: script.output_limit,
            ..Spec::new("/bin/sh")
                .args(["-c", &script.command])
                .env("HOME", home.0.path())
                .env("PATH", &self.path)
        };
        process::run(spec, &CancellationToken::new()).await.unwrap()
    }

    /// The status of an installation, or else of a removal.
    async fn status(&self, home: &Home, keys: Option<&str>, fence: Option<i64>) -> Option<i32> {
        let script = match keys {
            Some(keys) => Script::install(keys, fence),
            None => Script::remove(fence),
        };
        let output = self.run(home, &script.unwrap()).await;
        let refused = output.status.code() == Some(68);
        assert_eq!(refused, number_in(&output.tail).is_some(), "{output:?}");
        assert!(
            refused || output.tail.is_empty(),
            "{}: {output:?}",
            self.name
        );
        output.status.code()
    }
}

#[tokio::test]
async fn late_work_is_kept_off() {
    for shell in all_surroundings().await {
        let name = shell.name;
        let home = Home::with("own");
        let keys = |number: i64, keys: &str| format!("own\n{SEPARATOR}\n{FENCE}{number}\n{keys}");
        for (given, fence, status, then) in [
            (Some("a\nb"), Some(5), 0, keys(5, "a\nb\n")),
            // The same work again, with the same keys or others.
            (Some("a\nb"), Some(5), 0, keys(5, "a\nb\n")),
            (Some("c"), Some(5), 0, keys(5, "c\n")),
            (Some("late"), Some(4), 68, keys(5, "c\n")),
            (None, Some(4), 68, keys(5, "c\n")),
            (None, Some(5), 0, keys(5, "")),
            (Some("d"), Some(10), 0, keys(10, "d\n")),
            (None, Some(9), 68, keys(10, "d\n")),
            (None, Some(11), 0, keys(11, "")),
            (None, Some(11), 0, keys(11, "")),
            (Some("late"), Some(10), 68, keys(11, "")),
            (Some("late"), Some(0), 68, keys(11, "")),
            // Work without a number is let in, and does not take the number off.
            (None, None, 0, keys(11, "")),
            (Some("e"), None, 0, keys(11, "e\n")),
            (Some("late"), Some(10), 68, keys(11, "e\n")),
        ] {
            let got = shell.status(&home, given, fence).await;
            assert_eq!(got, Some(status), "{name}: {given:?} {fence:?}");
            assert_eq!(home.content(), then, "{name}: {given:?} {fence:?}");
        }
    }
}

#[tokio::test]
async fn numbers_are_compared_beyond_32_bits() {
    for shell in all_surroundings().await {
        let home = Home::with("own\n");
        for (fence, status) in [
            (1_795_687_250_073, 0),
            (1_795_687_250_072, 68),
            (2_147_483_648, 68),
            (1_795_687_250_073, 0),
            (999_999_999, 68),
            (1_000_000_000_000_000, 0),
            (999_999_999_999_999, 68),
            (1_000_000_001_000_000, 0),
            (1_000_000_000_999_999, 68),
        ] {
            let got = shell.status(&home, None, Some(fence)).await;
            assert_eq!(got, Some(status), "{}: {fence}", shell.name);
        }
    }
}

/// Each program costs a node about a millisecond.
#[tokio::test]
async fn keys_need_three_programs() {
    let programs = tempfile::tempdir().unwrap();
    for name in ["sh", "cp", "flock", "mv"] {
        let program = process::find_program(name.as_ref()).unwrap();
        symlink(program, programs.path().join(name)).unwrap();
    }
    let shell = Surroundings {
        name: "three programs",
        path: programs.path().display().to_string(),
        _programs: programs,
    };
    let home = Home::with("own\n");
    assert_eq!(shell.status(&home, Some("key"), Some(1)).await, Some(0));
    let keys = format!("own\n{SEPARATOR}\n# duffy fence 1\nkey\n");
    assert_eq!(home.content(), keys);
    assert_eq!(shell.status(&home, None, Some(2)).await, Some(0));
    assert_eq!(
        home.content(),
        format!("own\n{SEPARATOR}\n# duffy fence 2\n")
    );
}

#[tokio::test]
async fn only_a_number_after_the_line_is_one() {
    for shell in all_surroundings().await {
        for tenant in [
            "",
            "key\n# duffy fence 9\n",
            "# duffy fence\n",
            "# duffy fence \n",
            "# duffy fence 9 key\n",
            "# duffy fence -9\n",
            // More than any of ours can be, as a tenant may write it.
            "# duffy fence 9223372036854775807\n",
            "# duffy fence 99999999999999999999999999\n",
        ] {
            let home = Home::with(&format!("# duffy fence 9\n{SEPARATOR}\n{tenant}"));
            let status = shell.status(&home, Some("key"), Some(1)).await;
            assert_eq!(status, Some(0), "{}: {tenant:?}", shell.name);
            let now = format!("# duffy fence 9\n{SEPARATOR}\n# duffy fence 1\nkey\n");
            assert_eq!(home.content(), now, "{}", shell.name);
        }
        let home = Home::with(&format!("{SEPARATOR}\n# duffy fence 999999999999999999"));
        let status = shell.status(&home, None, Some(1)).await;
        assert_eq!(status, Some(68), "{}", shell.name);
    }
}

#[tokio::test]
async fn work_that_a_newer_one_passes_is_not_done() {
    for shell in all_surroundings().await {
        let name = shell.name;
        let home = Home::with("own\n");
        let go = home.0.path().join("go");
        // Stops where it has read the number and the keys.
        let mut late = Script::install("late", Some(5)).unwrap();
        let wait = format!("until [ -e {} ]; do :; done; exec 7>&-", go.display());
        late.command = late.command.replace("exec 7>&-", &wait);
        let passing = async {
            files_in(&home, 2).await;
            // More than one, as an inode that is free again may be taken for the new file.
            for _ in 0..3 {
                let status = shell.status(&home, Some("new"), Some(6)).await;
                assert_eq!(status, Some(0), "{name}");
            }
            fs::write(&go, "").unwrap();
        };
        let (output, ()) = tokio::join!(shell.run(&home, &late), passing);
        assert_eq!(output.status.code(), Some(67), "{name}: {output:?}");
        let now = format!("own\n{SEPARATOR}\n# duffy fence 6\nnew\n");
        assert_eq!(home.content(), now, "{name}");
        let output = shell.run(&home, &late).await;
        assert_eq!(output.status.code(), Some(68), "{name}: {output:?}");
        assert_eq!(number_in(&output.tail), Some(6), "{name}: {output:?}");
        assert_eq!(home.content(), now, "{name}");
    }
}

#[tokio::test]
async fn the_last_look_and_the_renaming_are_one_step() {
    for shell in all_surroundings().await {
        let name = shell.name;
        let mut places = std::env::split_paths(&shell.path);
        if !places.any(|place| place.join("flock").exists()) {
            continue;
        }
        let home = Home::with("own\n");
        let (looked, go) = (home.0.path().join("looked"), home.0.path().join("go"));
        let wait = format!(
            ": > {}; until [ -e {} ]; do :; done; mv -f",
            looked.display(),
            go.display()
        );
        let mut late = Script::install("late", Some(5)).unwrap();
        late.command = late.command.replace("mv -f", &wait);
        let mut newer = Script::install("new", Some(6)).unwrap();
        let comes = home.0.path().join("comes");
        let tell = format!(": > {}; flock 9", comes.display());
        newer.command = newer.command.replace("flock 9", &tell);
        let passing = async {
            eventually(|| looked.exists()).await;
            let go_on = async {
                eventually(|| comes.exists()).await;
                // The other stands at the lock now, or will: it cannot have renamed.
                assert!(!home.text().contains("new"), "{name}");
                fs::write(&go, "").unwrap();
            };
            tokio::join!(shell.run(&home, &newer), go_on).0
        };
        let (output, passed) = tokio::join!(shell.run(&home, &late), passing);
        assert!(output.status.success(), "{name}: {output:?}");
        assert_eq!(passed.status.code(), Some(67), "{name}: {passed:?}");
        let passed = shell.run(&home, &newer).await;
        assert!(passed.status.success(), "{name}: {passed:?}");
        let now = format!("own\n{SEPARATOR}\n# duffy fence 6\nnew\n");
        assert_eq!(home.content(), now, "{name}");
    }
}

#[tokio::test]
async fn keys_are_read_without_the_number() {
    for shell in all_surroundings().await {
        let home = Home::with("own\n");
        for (number, keys) in [(None, None), (Some(1), Some("a\n\nb")), (Some(2), None)] {
            if number.is_some() {
                let status = shell.status(&home, keys, number).await;
                assert_eq!(status, Some(0), "{}", shell.name);
            }
            let output = shell.run(&home, &Script::read()).await;
            assert!(output.status.success(), "{}: {output:?}", shell.name);
            let read = String::from_utf8(output.stdout).unwrap();
            assert_eq!(tenant_part(&read).as_deref(), keys, "{}", shell.name);
            assert_eq!(read, home.content(), "{}", shell.name);
        }
        fs::remove_file(home.0.path().join(".ssh/authorized_keys")).unwrap();
        let output = shell.run(&home, &Script::read()).await;
        assert!(output.status.success() && output.stdout.is_empty());
    }
    for (content, keys) in [
        ("own\n# duffy fence 1\nkey", None),
        ("### DUFFY tenant credentials\n\n \n", None),
        ("x ### DUFFY tenant credentials y\r\nkey\r\n", Some("key")),
        (
            "### DUFFY tenant credentials\n# duffy fence x\n",
            Some("# duffy fence x"),
        ),
    ] {
        assert_eq!(tenant_part(content).as_deref(), keys, "{content:?}");
    }
}

async fn files_in(home: &Home, count: usize) {
    let directory = home.0.path().join(".ssh");
    eventually(|| fs::read_dir(&directory).unwrap().count() == count).await;
}

async fn eventually(condition: impl Fn() -> bool) {
    let started = std::time::Instant::now();
    while !condition() {
        assert!(started.elapsed().as_secs() < 20, "waited in vain");
        tokio::task::yield_now().await;
    }
}
