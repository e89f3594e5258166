//! `config check` and `config dump`.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;

use crate::{duffy, run};

const CONFIG: &str = include_str!("data/config.yaml");
/// What the Python original prints for it.
const DUMP: &str = include_str!("data/config-dump.yaml");

#[test]
fn check_and_dump_as_the_original() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.yaml");
    fs::write(&file, CONFIG).unwrap();
    // It contains keys, so a file that others can read causes a warning.
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(
        run(dir.path(), &["-c", "config.yaml", "config", "check"]),
        "exit: 0\n----- stdout\nOK.\n\
         Validated configuration subkeys: client, app, metaclient, tasks, database, defaults, nodepools\n\
         ----- stderr\n"
    );
    assert_eq!(
        run(dir.path(), &["-c", "config.yaml", "config", "dump"]),
        format!("exit: 0\n----- stdout\n{DUMP}----- stderr\n")
    );
}

#[test]
fn an_empty_configuration_is_one() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("empty.yaml"), "---\n---\n").unwrap();
    let shown = |command| run(dir.path(), &["-c", "empty.yaml", "config", command]);
    assert_eq!(
        shown("check"),
        "exit: 0\n----- stdout\nConfiguration is empty.\n----- stderr\n"
    );
    assert_eq!(shown("dump"), "exit: 0\n----- stdout\n{}\n----- stderr\n");
}

#[test]
fn a_wrong_configuration_fails_each_command() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.yaml"), "client: {}\nnonsense: 1\n").unwrap();
    fs::write(dir.path().join("b.yaml"), "client: [\n").unwrap();
    for (file, command) in [("a.yaml", "check"), ("a.yaml", "dump"), ("b.yaml", "check")] {
        let shown = run(dir.path(), &["-c", file, "config", command]);
        assert!(
            shown.starts_with("exit: 1\n----- stdout\n----- stderr\nerror: "),
            "{shown}"
        );
        assert!(!shown.contains("panicked"), "{shown}");
    }
    let shown = run(dir.path(), &["-c", "a.yaml", "client", "list-pools"]);
    assert!(shown.contains("nonsense"), "{shown}");
}

#[test]
fn a_reader_that_goes_is_no_failure_and_a_full_disk_is_one() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("config.yaml"), CONFIG).unwrap();
    let dump = || {
        let mut command = duffy(dir.path());
        command.args(["-c", "config.yaml", "config", "dump"]);
        command
    };
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = dump().stdout(writer).output().unwrap();
    assert_eq!(
        (output.status.code(), output.stderr.as_slice()),
        (Some(0), &b""[..])
    );

    let full = File::options().write(true).open("/dev/full").unwrap();
    let output = dump().stdout(full).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said.starts_with("error: can't write to the standard output: "),
        "{said}"
    );

    // Help is data too.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = duffy(dir.path())
        .arg("--help")
        .stdout(writer)
        .output()
        .unwrap();
    assert_eq!(
        (output.status.code(), output.stderr.as_slice()),
        (Some(0), &b""[..])
    );
}
