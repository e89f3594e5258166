//! Imports tenants from CSV dumps of the old Duffy.

use std::fs;

use super::{Engine, WireSite};
use crate::support::http;

const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";

#[test]
fn old_tenants_are_imported_on_postgresql() {
    import(Engine::Postgres);
}

#[test]
fn old_tenants_are_imported_on_sqlite() {
    import(Engine::Sqlite);
}

fn import(engine: Engine) {
    let site = WireSite::new(engine);
    let users = site.scratch().join("users.csv");
    let keys = site.scratch().join("userkeys.csv");
    fs::write(
        &users,
        "'old-one','ci','one','2015-06-01 10:00:00','10'\n\
         'old-two','ci','it''s two','2015-06-01 10:00:00','5'\n\
         'old-three','ci','tenant','2015-06-01 10:00:00','5'\n\
         'old-four-DISABLED','ci','four','2015-06-01 10:00:00','5'\n\
         'old-five','ci','five','2015-06-01 10:00:00','5'\n",
    )
    .unwrap();
    fs::write(
        &keys,
        format!(
            "'1','old-one','{KEY} one'\n'2','old-two','hunter2'\n'3','old-three','{KEY}'\n\
             '4','old-four-DISABLED','{KEY}'\n'5','old-one','{KEY} again'\n"
        ),
    )
    .unwrap();
    let files = [users.to_str().unwrap(), keys.to_str().unwrap()];
    let run = |command: &[&str]| {
        let output = site.duffy().run(&[&["admin"], command, &files].concat());
        assert_eq!(output.code, 0, "{output:?}");
        (output.stdout, output.stderr)
    };
    let names = || site.duffy().succeed(&["admin", "list-tenants", "--quiet"]);

    let skipped = "SKIPPED: five: no SSH key\nSKIPPED: four: disabled\n";
    let warning = "WARNING: it's two: line 1 of the SSH key is not an OpenSSH public key: nobody can log in to nodes with it\n";
    let (stdout, stderr) = run(&["import-tenants", "--dry-run"]);
    assert_eq!(stdout, "OK: it's two\nOK: one\n");
    assert_eq!(
        stderr,
        format!(
            "{skipped}SKIPPED: tenant: exists\n{warning}This was a dry run: nothing has been written.\n"
        )
    );
    assert_eq!(names(), "admin\nother\ntenant\n");

    let (stdout, stderr) = run(&["import-tenants"]);
    assert_eq!(stdout, "OK: it's two\nOK: one\n");
    assert_eq!(
        stderr,
        format!("{skipped}SKIPPED: tenant: exists\n{warning}")
    );
    assert_eq!(names(), "admin\nit's two\none\nother\ntenant\n");

    let (stdout, stderr) = run(&["import-tenants"]);
    assert_eq!(stdout, "");
    assert_eq!(
        stderr,
        format!(
            "{skipped}SKIPPED: it's two: exists\nSKIPPED: one: exists\nSKIPPED: tenant: exists\n"
        )
    );

    let (stdout, stderr) = run(&["generate-usermap"]);
    assert_eq!(
        stdout,
        "metaclient:\n  usermap:\n    old-one: one\n    old-three: tenant\n    old-two: it's two\n"
    );
    assert_eq!(stderr, skipped);

    // Imported tenants authenticate with their old keys. An existing tenant keeps its own.
    let (_server, url) = site.serve();
    let status = |name, key| {
        let url = format!("{url}/api/v1/tenants");
        http("GET", &url, Some((name, key)), None).unwrap().status
    };
    assert_eq!(status("one", "old-one"), 200);
    assert_eq!(status("it's two", "old-two"), 200);
    assert_eq!(status("tenant", "old-three"), 401);
    assert_eq!(
        status("tenant", "a8b9899d-b128-59a1-aa86-754920b7f5ed"),
        200
    );
}
