//! The old API's configuration: warnings and errors about who can read its keys.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::run;

const KEY: &str = "a8b9899d-b128-59a1-aa86-754920b7f5ed";

/// Creates a configuration in a file with this mode, in a directory that others can enter.
fn site(mode: u32, settings: &str) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
    let text = format!("metaclient:\n  usermap: {{\"{KEY}\": tenant}}\n  poolmap: []\n{settings}");
    let file = dir.path().join("keys.yaml");
    fs::write(&file, text).unwrap();
    fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
    let file = fs::canonicalize(file).unwrap();
    (dir, file)
}

/// The warning about a file that everybody can read.
fn exposed(file: &Path) -> String {
    format!(
        "every user of this machine can read the API keys in its `usermap`; type: chmod 600 {}\n",
        file.display()
    )
}

#[test]
fn keys_that_others_can_read_are_warned_of() {
    let (dir, file) = site(0o644, "");
    let shown = run(dir.path(), &["-c", "keys.yaml", "config", "check"]);
    let told = format!(
        "exit: 0\n----- stdout\nOK.\nValidated configuration subkeys: metaclient\n\
         ----- stderr\nwarning: keys.yaml: {}",
        exposed(&file)
    );
    assert_eq!(shown, told);
    assert!(!shown.contains(KEY), "{shown}");
    for mode in [0o600, 0o640] {
        let (dir, _) = site(mode, "");
        let shown = run(dir.path(), &["-c", "keys.yaml", "config", "check"]);
        assert!(
            shown.ends_with("metaclient\n----- stderr\n"),
            "{mode:o}: {shown}"
        );
    }
}

#[test]
fn the_file_with_the_keys_is_the_one_that_counts() {
    let (dir, _) = site(0o600, "");
    fs::write(dir.path().join("other.yaml"), "metaclient: {port: 9091}\n").unwrap();
    let files = ["-c", "keys.yaml", "-c", "other.yaml", "config", "check"];
    let shown = run(dir.path(), &files);
    assert!(shown.ends_with("metaclient\n----- stderr\n"), "{shown}");
}

#[test]
fn strict_permissions_refuse() {
    let (dir, file) = site(0o644, "  strict-permissions: yes\n");
    let mut commands = vec![&["config", "check"][..]];
    if cfg!(feature = "legacy") {
        commands.push(&["serve-legacy", "-p", "0"]);
    }
    for command in commands {
        let shown = run(dir.path(), &[&["-c", "keys.yaml"], command].concat());
        let told = format!(
            "exit: 1\n----- stdout\n----- stderr\nerror: keys.yaml: {}",
            exposed(&file)
        );
        assert_eq!(shown, told, "{command:?}");
    }
}

#[cfg(feature = "legacy")]
#[test]
fn what_cannot_be_served_is_told_in_one_line() {
    let (dir, _) = site(0o600, "");
    fs::write(dir.path().join("empty.yaml"), "").unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for (file, args, told) in [
        ("empty.yaml", &[][..], "no `metaclient` section"),
        ("keys.yaml", &["-p", &port], "is taken by another program"),
        (
            "keys.yaml",
            &["-H", "192.0.2.1", "-p", "0"],
            "not an address of this machine",
        ),
        (
            "keys.yaml",
            &["-p", "0", "-D", "ftp://h"],
            "set `dest` in `metaclient`",
        ),
    ] {
        let shown = run(
            dir.path(),
            &[&["-c", file, "-l", "error", "serve-legacy"], args].concat(),
        );
        let said = shown.strip_prefix("exit: 1\n----- stdout\n----- stderr\nerror: ");
        let said = said.unwrap_or_else(|| panic!("{shown}"));
        assert!(said.contains(told) && said.lines().count() == 1, "{said}");
    }
}
