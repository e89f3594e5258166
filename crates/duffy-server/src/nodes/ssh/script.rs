//! The commands that a node runs: one replaces `authorized_keys` in one step, one reads it.
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
//! # Late commands
//!
//! A process may sleep between asking for its lease and the command, a command may hang while its client
//! gives up, and either may go on when the node is somebody else's. Two things keep such work off.
//!
//! *The fence*: a number that the database raises with each claim of the node. It stands in the line after
//! [`SEPARATOR`], a comment to sshd, so that the rename that changes the keys changes it too. A command with
//! a lower number than the file's changes nothing and exits with [`FENCED_OFF`]. Removals keep the line.
//! Commands without a number pass, and keep what is there.
//!
//! *The inode*: each command puts a new file in the place of the old one, also when there is nothing to
//! remove, and none does when the file is not the one it began with ([`OVERTAKEN`]). Whoever still waits for
//! it begins again then, and meets the fence. The old file is held open, lest its inode be used again.
//!
//! Say L is late with 5, N works with 6. Commands read the number, build their file, and then, holding the
//! lock on the directory, look whether inode and number are still what they read, and rename.
//! - N renames before L reads: L reads 6, and is fenced off.
//! - N renames after L read and before L has the lock: L finds another file, and is overtaken.
//! - L renames before N has the lock: N is overtaken, begins again, and replaces what L did. N's keys are
//!   the last, and whoever waits for N is told of success only then.
//! - Look and rename are one step as to the other, as both happen under the lock. Nothing is waited for
//!   under it, and it goes with the process that has it.
//!
//! Without `flock`, or where the file system has no locks on directories, a window remains: N's rename may
//! fall between L's last look and L's rename, about a millisecond on the node itself. Nor is there help
//! against what writes the file in place, as the Python original does, nor in a machine that was made anew
//! at the same address: its file begins without a number.

use super::SshError;

/// Begins the tenants' part of `authorized_keys`.
pub(super) const SEPARATOR: &str = "### DUFFY tenant credentials";

/// Begins the line after [`SEPARATOR`] that has the number of the last work on the node.
const FENCE: &str = "# duffy fence ";

/// Numbers with more digits are none of ours, and more than some shells can compare.
const FENCE_DIGITS: u32 = 18;

/// Names the file, ends with a message about it, and removes what a failure leaves.
const PREAMBLE: &str = r#"LC_ALL=C; export LC_ALL; umask 077; f=${HOME:?}/.ssh/authorized_keys; t=; fail() { echo "$f: $1" >&2; exit 65; }; clean() { [ -z "$t" ] || rm -f "$t"; }; trap clean EXIT; trap "exit 66" HUP INT TERM PIPE; "#;

/// Ends where no home can be looked into, or where there is no file, which is as good as one without keys.
const LOOK: &str = r#"if [ -d "$HOME/.ssh" ]; then [ -x "$HOME/.ssh" ] || fail "no permission to look for it"; fi; [ -e "$f" ] || exit 0; [ -f "$f" ] || fail "it is not a file"; "#;

/// Follows a link, reads the number, and writes the node's own part to a new file.
const COPY: &str = r#"fence() { sed -n "/SEPARATOR/{n;/^FENCE[0-9][0-9]*$/s/^FENCE//p;q;}" "$1"; }; if [ -h "$f" ]; then r=$(readlink -f "$f") || r=; [ -f "$r" ] || fail "cannot follow this symbolic link"; f=$r; fi; i=$(ls -i "$f"); if (: 8< "$f") 2>/dev/null; then exec 8< "$f"; fi; t=$(mktemp "$f.XXXXXX" 2>/dev/null) || t=$f.duffy$$; cp -p --preserve=context "$f" "$t" 2>/dev/null || cp -p "$f" "$t" || fail "cannot copy it"; k=$(fence "$t"); n=$k; [ ${#n} -le DIGITS ] || n=; w=; [ -w "$t" ] || { chmod u+w "$t" && w=1; }; sed -n "/SEPARATOR/q;p" "$f" > "$t" || fail "cannot write a file next to it"; "#;

/// Gives up where a newer work has been.
const COMPARE: &str = r#"[ "${n:-0}" -le NUMBER ] || { echo "$f: it has FENCE$n, and this work only NUMBER" >&2; exit 68; }; n=NUMBER; "#;

/// Begins the tenants' part, with the number if there is one.
const BEGIN: &str = r#"{ { [ -z "$(tail -c 1 "$t")" ] || echo; } && echo "SEPARATOR" && { [ -z "$n" ] || echo "FENCE$n"; }; } >> "$t" || fail "cannot write a file next to it"; "#;

/// Reads the tenants' keys.
const KEYS: &str = r#"b=$(wc -c < "$t"); cat >> "$t" || fail "cannot write a file next to it"; e=$(wc -c < "$t"); [ $((e - b)) -eq LENGTH ] || fail "the connection broke before all keys had come"; "#;

/// Puts the new file in the place of the old one.
const REPLACE: &str = r#"[ -z "$w" ] || chmod u-w "$t"; d=${f%/*}; if command -v flock >/dev/null 2>&1 && (: 9< "$d") 2>/dev/null; then exec 9< "$d"; flock 9 2>/dev/null; fi; [ "$(ls -i "$f")" = "$i" ] && [ "$(fence "$f")" = "$k" ] || { echo "$f: somebody else has replaced it meanwhile" >&2; exit 67; }; mv -f "$t" "$f" || fail "cannot replace it"; t="#;

/// How the command exits when another one has replaced the file since it began.
pub(super) const OVERTAKEN: &str = "status 67";

/// How the command exits when the file has a higher number.
pub(super) const FENCED_OFF: &str = "status 68";

/// More than this of the file is not read.
pub(super) const READ_LIMIT: usize = 1 << 20;

/// A command for a node, and what it reads.
pub(super) struct Script {
    /// What it does, for messages.
    pub what: &'static str,
    /// The command line.
    pub command: String,
    /// Its whole standard input.
    pub input: Vec<u8>,
    /// How much of its standard output is of interest, in bytes.
    pub output_limit: usize,
}

impl Script {
    /// Replaces the tenants' part by these keys, unless the node has a higher number than this.
    pub fn install(tenant_keys: &str, fence: Option<i64>) -> Result<Self, SshError> {
        if tenant_keys.contains('\0') {
            return Err(SshError::Config(
                "the tenant's SSH key has a null byte in it; set the tenant's key again".to_owned(),
            ));
        }
        if tenant_keys.starts_with(FENCE) {
            return Err(SshError::Config(format!(
                "the tenant's SSH key begins with {FENCE:?}, as Duffy's own notes do; set the tenant's key \
                 again"
            )));
        }
        let input = format!("{tenant_keys}\n").into_bytes();
        let script = [
            PREAMBLE,
            r#"[ -f "$f" ] || fail "there is no such file; it must exist and hold the public key of Duffy itself"; "#,
            COPY,
            &compare(fence)?,
            BEGIN,
            &KEYS.replace("LENGTH", &input.len().to_string()),
            REPLACE,
        ];
        Ok(Self {
            what: "installing keys",
            command: wrap(&script.concat()),
            input,
            output_limit: 0,
        })
    }

    /// Removes the tenants' part, but for the number, unless the node has a higher one than this.
    pub fn remove(fence: Option<i64>) -> Result<Self, SshError> {
        let compare = compare(fence)?;
        let begin = format!(r#"if [ -n "$n" ]; then {BEGIN} fi; "#);
        let script = [PREAMBLE, LOOK, COPY, &compare, &begin, REPLACE];
        Ok(Self {
            what: "removing keys",
            command: wrap(&script.concat()),
            input: Vec::new(),
            output_limit: 0,
        })
    }

    /// Prints the file, or as much of it as [`tenant_part`] needs to see that it is too long.
    pub fn read() -> Self {
        let read = format!(
            r#"head -c {} "$f" || fail "cannot read it""#,
            READ_LIMIT + 1
        );
        Self {
            what: "reading keys",
            command: wrap(&[PREAMBLE, LOOK, &read].concat()),
            input: Vec::new(),
            output_limit: READ_LIMIT + 1,
        }
    }
}

/// The tenants' keys in an `authorized_keys`, without the number.
pub(super) fn tenant_part(content: &str) -> Option<String> {
    let mut lines = content
        .lines()
        .skip_while(|line| !line.contains(SEPARATOR))
        .skip(1)
        .peekable();
    lines.next_if(|line| {
        line.strip_prefix(FENCE).is_some_and(|number| {
            !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
        })
    });
    let keys = lines.collect::<Vec<_>>().join("\n").trim().to_owned();
    (!keys.is_empty()).then_some(keys)
}

/// The number that the node has, in what a command said that was fenced off.
pub(super) fn number_in(message: &str) -> Option<i64> {
    let (_, rest) = message.split_once(FENCE)?;
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

fn compare(fence: Option<i64>) -> Result<String, SshError> {
    match fence {
        None => Ok(String::new()),
        Some(number) if (0..10_i64.pow(FENCE_DIGITS)).contains(&number) => {
            Ok(COMPARE.replace("NUMBER", &number.to_string()))
        }
        Some(number) => Err(SshError::Config(format!(
            "{number} is no number for work on a node; check the database"
        ))),
    }
}

fn wrap(script: &str) -> String {
    let script = script
        .replace("SEPARATOR", SEPARATOR)
        .replace("FENCE", FENCE)
        .replace("DIGITS", &FENCE_DIGITS.to_string());
    format!("sh -c '{script}'")
}

#[cfg(test)]
#[path = "script_tests.rs"]
mod tests;
