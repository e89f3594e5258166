//! `duffy dev-shell`, with stand-ins for the databases' shells that print how they were started.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::run_with;

fn dev_shell(dir: &Path, url: &str, path: &str) -> String {
    let config = format!("database: {{sqlalchemy: {{sync_url: '{url}', async_url: '{url}'}}}}\n");
    fs::write(dir.join("c.yaml"), config).unwrap();
    run_with(
        dir,
        &["-c", "c.yaml", "dev-shell"],
        &[("PATH", path), ("PGHOST", "wrong")],
    )
}

fn stand_in(dir: &Path, program: &str, script: &str) {
    let file = dir.join("bin").join(program);
    fs::create_dir_all(dir.join("bin")).unwrap();
    fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(file, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn psql_gets_the_database_by_its_environment() {
    let dir = tempfile::tempdir().unwrap();
    stand_in(
        dir.path(),
        "psql",
        "echo \"$# $PGUSER $PGPASSWORD $PGHOST $PGPORT $PGDATABASE $PGSSLMODE $PGAPPNAME\"; exit 3",
    );
    let path = format!("{}:/usr/bin:/bin", dir.path().join("bin").display());
    let url = "postgresql+psycopg2://me:p%40ss@db.example.org:5433/lab?sslmode=require";
    assert_eq!(
        dev_shell(dir.path(), url, &path),
        "exit: 3\n----- stdout\n0 me p@ss db.example.org 5433 lab require \n----- stderr\n"
    );
}

#[test]
fn sqlite3_gets_the_file() {
    let dir = tempfile::tempdir().unwrap();
    stand_in(dir.path(), "sqlite3", "echo \"$# $1\"");
    let path = format!("{}:/usr/bin:/bin", dir.path().join("bin").display());
    let shown = dev_shell(dir.path(), "sqlite:///-x.db", &path);
    assert!(
        shown.starts_with("exit: 1\n") && shown.contains("setup-db"),
        "{shown}"
    );
    assert!(!dir.path().join("-x.db").exists());
    fs::write(dir.path().join("-x.db"), "").unwrap();
    let shown = dev_shell(dir.path(), "sqlite:///-x.db", &path);
    assert_eq!(shown, "exit: 0\n----- stdout\n1 ./-x.db\n----- stderr\n");
}

#[test]
fn what_is_missing_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let empty = dir.path().join("none").display().to_string();
    let shown = dev_shell(dir.path(), "postgresql://u:secret@h/d", &empty);
    assert!(
        shown.starts_with("exit: 1\n----- stdout\n----- stderr\nerror: ")
            && shown.contains("psql")
            && shown.contains("install the package")
            && !shown.contains("secret"),
        "{shown}"
    );
    fs::write(dir.path().join("none.yaml"), "").unwrap();
    let shown = run_with(dir.path(), &["-c", "none.yaml", "dev-shell"], &[]);
    assert!(shown.contains("no section `database`"), "{shown}");
}
