//! `--help` of each command, word by word.

use std::path::Path;

use crate::run;

#[test]
fn help_of_each_command() {
    let commands = [
        "",
        "quickstart",
        "run",
        "serve",
        "serve-legacy",
        "worker",
        "client",
        "client list-sessions",
        "client show-session",
        "client request-session",
        "client retire-session",
        "client list-pools",
        "client show-pool",
        "admin",
        "admin list-tenants",
        "admin show-tenant",
        "admin create-tenant",
        "admin update-tenant",
        "admin retire-tenant",
        "admin import-tenants",
        "admin generate-usermap",
        "admin list-nodes",
        "admin show-node",
        "admin retire-node",
        "admin repair-node",
        "admin hold-node",
        "admin list-pools",
        "admin drain-pool",
        "admin resume-pool",
        "admin node-events",
        "admin session-events",
        "admin purge",
        "admin check",
        "config",
        "config check",
        "config dump",
        "setup-db",
        "migration",
        "migration create",
        "migration db-version",
        "migration upgrade",
        "migration downgrade",
        "dev-shell",
    ];
    let dir = tempfile::tempdir().unwrap();
    for command in commands {
        let mut args: Vec<&str> = command.split_whitespace().collect();
        args.push("--help");
        let shown = run(dir.path(), &args);
        let name = format!("help {command}").trim_end().replace(' ', "-");
        insta::assert_snapshot!(name, shown, &args.join(" "));
    }
}

#[test]
fn version_reads_as_the_originals() {
    let shown = run(Path::new("/"), &["--version"]);
    assert_eq!(
        shown,
        "exit: 0\n----- stdout\nDuffy, version <version>\n----- stderr\n"
    );
}
