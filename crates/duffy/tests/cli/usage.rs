//! Wrong usage: exit code 2, the reason on stderr, nothing on stdout.

use std::fmt::Write;

use crate::run;

#[test]
fn wrong_usage() {
    let lines = [
        "",
        "nonsense",
        "-l WARN config check",
        "-c missing.yaml config check",
        "client",
        "client --format xml list-pools",
        "client show-session abc",
        "client show-session -1",
        "client show-session 99999999999999999999",
        "client request-session",
        "client request-session pool=nope",
        "client request-session pool=a,pool=b,quantity=1",
        "client request-session pool=a,quantity=0",
        "client request-session word",
        "admin",
        "admin update-tenant --node-quota many cli",
        "admin update-tenant --session-lifetime long cli",
        "admin update-tenant --api-key hunter2 cli",
        "admin create-tenant cli",
        "config",
        "migration",
        "migration create",
        "serve -p 70000",
        "worker --nonsense",
        "worker -c many",
    ];
    let dir = tempfile::tempdir().unwrap();
    let mut all = String::new();
    for line in lines {
        let args: Vec<&str> = line.split_whitespace().collect();
        let shown = run(dir.path(), &args);
        assert!(
            shown.starts_with("exit: 2\n----- stdout\n----- stderr\n"),
            "{line}: {shown}"
        );
        // Without arguments, the help is printed. Other snapshots have its text.
        let said = match shown.split_once("Usage:") {
            Some((before, _))
                if line.is_empty()
                    || ["client", "admin", "config", "migration"].contains(&line) =>
            {
                format!("{before}Usage: …\n")
            }
            _ => shown,
        };
        writeln!(all, "$ duffy {line}\n{said}").unwrap();
    }
    insta::assert_snapshot!("wrong-usage", all);
}

#[test]
fn an_empty_argument_is_no_name() {
    let dir = tempfile::tempdir().unwrap();
    for args in [
        &["client", "show-pool", ""][..],
        &["admin", "create-tenant", "", "key"],
        &["admin", "create-tenant", "name", ""],
    ] {
        let shown = run(dir.path(), args);
        assert!(shown.starts_with("exit: 2\n"), "{args:?}: {shown}");
    }
}

#[cfg(feature = "server")]
#[test]
fn migrations_are_not_made_by_the_binary() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("empty.yaml"), "").unwrap();
    let shown = run(
        dir.path(),
        &["-c", "empty.yaml", "migration", "create", "a", "b"],
    );
    insta::assert_snapshot!("migration-create", shown);
}
