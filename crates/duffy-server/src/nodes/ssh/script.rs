//! The one command that a node runs: replaces `authorized_keys` in one step.
//!
//! Lines before [`SEPARATOR`] are the node's own and stay as they are; it and everything after it are a
//! tenant's. The new content is written to a file next to the old one, which has been copied from it to
//! have its mode, owner and security context, and is then renamed over it.
//!
//! Root's login shell may be anything, so the script is one line in single quotes, without what `csh` or
//! `fish` would still interpret there: no quote, exclamation mark or backslash. It says `$HOME`, not
//! `~root`: simulated machines, and nodes reached as another user, have the file elsewhere. Keys come by
//! standard input only, and their number of bytes is checked: a connection that breaks looks like the end
//! of the input.
//!
//! A command that hung while its client gave up may go on later. So each puts a new file in the place of the
//! old one, also when there is nothing to remove, and none does when the file is not the one it began with:
//! a late installation does not undo a removal. Whoever still waits for the command begins again then.

use super::SshError;

/// Begins the tenants' part of `authorized_keys`.
pub(super) const SEPARATOR: &str = "### DUFFY tenant credentials";

/// Names the file, ends with a message about it, and removes what a failure leaves.
const PREAMBLE: &str = r#"LC_ALL=C; export LC_ALL; umask 077; f=${HOME:?}/.ssh/authorized_keys; t=; fail() { echo "$f: $1" >&2; exit 65; }; clean() { [ -z "$t" ] || rm -f "$t"; }; trap clean EXIT; trap "exit 66" HUP INT TERM PIPE; "#;

/// Follows a link and writes the node's own part to a new file.
const COPY: &str = r#"if [ -h "$f" ]; then r=$(readlink -f "$f") || r=; [ -f "$r" ] || fail "cannot follow this symbolic link"; f=$r; fi; i=$(ls -i "$f"); t=$(mktemp "$f.XXXXXX" 2>/dev/null) || t=$f.duffy$$; cp -p --preserve=context "$f" "$t" 2>/dev/null || cp -p "$f" "$t" || fail "cannot copy it"; w=; [ -w "$t" ] || { chmod u+w "$t" && w=1; }; sed -n "/SEPARATOR/q;p" "$f" > "$t" || fail "cannot write a file next to it"; "#;

/// Puts the new file in the place of the old one.
const REPLACE: &str = r#"[ -z "$w" ] || chmod u-w "$t"; [ "$(ls -i "$f")" = "$i" ] || { echo "$f: somebody else has replaced it meanwhile" >&2; exit 67; }; mv -f "$t" "$f" || fail "cannot replace it"; t="#;

/// How the command exits when another one has replaced the file since it began.
pub(super) const OVERTAKEN: &str = "status 67";

/// A command for a node, and what it reads.
pub(super) struct Script {
    /// What it does, for messages.
    pub what: &'static str,
    /// The command line.
    pub command: String,
    /// Its whole standard input.
    pub input: Vec<u8>,
}

impl Script {
    /// Replaces the tenants' part by these keys.
    pub fn install(tenant_keys: &str) -> Result<Self, SshError> {
        if tenant_keys.contains('\0') {
            return Err(SshError::Config(
                "the tenant's SSH key has a null byte in it; set the tenant's key again".to_owned(),
            ));
        }
        let input = format!("{SEPARATOR}\n{tenant_keys}\n").into_bytes();
        let script = [
            PREAMBLE,
            r#"[ -f "$f" ] || fail "there is no such file; it must exist and hold the public key of Duffy itself"; "#,
            COPY,
            r#"[ -z "$(tail -c 1 "$t")" ] || echo >> "$t" || fail "cannot write a file next to it"; b=$(wc -c < "$t"); cat >> "$t" || fail "cannot write a file next to it"; e=$(wc -c < "$t"); [ $((e - b)) -eq LENGTH ] || fail "the connection broke before all keys had come"; "#,
            REPLACE,
        ];
        Ok(Self {
            what: "installing keys",
            command: wrap(&script.concat().replace("LENGTH", &input.len().to_string())),
            input,
        })
    }

    /// Removes the tenants' part.
    pub fn remove() -> Self {
        let script = [
            PREAMBLE,
            r#"if [ -d "$HOME/.ssh" ]; then [ -x "$HOME/.ssh" ] || fail "no permission to look for it"; fi; [ -e "$f" ] || exit 0; [ -f "$f" ] || fail "it is not a file"; "#,
            COPY,
            REPLACE,
        ];
        Self {
            what: "removing keys",
            command: wrap(&script.concat()),
            input: Vec::new(),
        }
    }
}

fn wrap(script: &str) -> String {
    format!("sh -c '{}'", script.replace("SEPARATOR", SEPARATOR))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::process::{self, Output, Spec};

    async fn run(home: &Path, command: &str, input: &[u8]) -> Output {
        let spec = Spec::new("/bin/sh")
            .args(["-c", command])
            .env("HOME", home)
            .stdin(input);
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
            fs::read_to_string(self.0.path().join(".ssh/authorized_keys")).unwrap()
        }

        async fn install(&self, keys: &str) {
            let script = Script::install(keys).unwrap();
            let output = run(self.0.path(), &script.command, &script.input).await;
            assert!(output.status.success(), "{output:?}");
        }

        async fn remove(&self) {
            let script = Script::remove();
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
        let script = Script::install("a key that is long").unwrap();
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
        let script = Script::install("key").unwrap();
        // Stands still where the keys would be read, and goes on when the removal is done.
        let go = home.0.path().join("go");
        let wait = format!("until [ -e {} ]; do :; done; cat >>", go.display());
        let slow = script.command.replace("cat >>", &wait);
        assert_ne!(slow, script.command);
        let late = run(home.0.path(), &slow, &script.input);
        let removal = async {
            let started = std::time::Instant::now();
            while fs::read_dir(home.0.path().join(".ssh")).unwrap().count() < 2 {
                assert!(started.elapsed().as_secs() < 20);
                tokio::task::yield_now().await;
            }
            let output = run(home.0.path(), &Script::remove().command, b"").await;
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
        let install = Script::install("key").unwrap();
        let output = run(home.path(), &install.command, &install.input).await;
        assert_eq!(output.status.code(), Some(65), "{output:?}");
        assert!(
            output
                .tail
                .contains("authorized_keys: there is no such file"),
            "{output:?}"
        );
        let output = run(home.path(), &Script::remove().command, b"").await;
        assert!(output.status.success(), "{output:?}");

        fs::create_dir_all(home.path().join(".ssh/authorized_keys")).unwrap();
        let output = run(home.path(), &Script::remove().command, b"").await;
        assert_eq!(output.status.code(), Some(65), "{output:?}");

        // Without a home nothing can be said about keys.
        let output = run(Path::new(""), &Script::remove().command, b"").await;
        assert!(!output.status.success(), "{output:?}");
    }

    #[tokio::test]
    async fn links_are_followed_and_modes_kept() {
        let home = Home::with("");
        let link = home.0.path().join(".ssh/authorized_keys");
        let file = home.0.path().join("keys");
        fs::rename(&link, &file).unwrap();
        std::os::unix::fs::symlink("../keys", &link).unwrap();
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
        for script in [Script::install(key).unwrap(), Script::remove()] {
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
    fn keys_are_sent_as_the_original_writes_them() {
        let script = Script::install("key one\nkey two").unwrap();
        assert_eq!(
            script.input,
            b"### DUFFY tenant credentials\nkey one\nkey two\n"
        );
        assert!(script.command.contains("-eq 45 "), "{}", script.command);
        assert!(Script::install("a\0b").is_err());
    }
}
