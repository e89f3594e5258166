//! Errors at startup: one line, before anything changes.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Duffy, Lab, Pool, Site, free_port};

/// Runs a command, which must fail with a message of one line that contains all of `words`.
fn refuses(duffy: &Duffy, arguments: &[&str], words: &[&str]) {
    let started = Instant::now();
    let output = duffy.run(arguments);
    let took = started.elapsed();
    let context = format!("{arguments:?} {words:?}: {output:?}");
    assert_eq!((output.code, output.stdout.as_str()), (1, ""), "{context}");
    assert_eq!(output.stderr.lines().count(), 1, "{context}");
    assert!(output.stderr.starts_with("error: "), "{context}");
    assert!(!output.stderr.contains('\u{1b}'), "{context}");
    assert!(took < Duration::from_secs(8), "after {took:?}: {context}");
    for word in words {
        assert!(output.stderr.contains(word), "lacks {word:?}: {context}");
    }
}

const SERVERS: [&[&str]; 3] = [&["serve"], &["worker"], &["run"]];

/// A site without a database, with a pool of simulated nodes, which logs only errors.
fn site(settings: &Value) -> Site {
    let mut site = Site::sqlite(
        &[Pool::simulated("pool", 1, &json!({}))],
        &json!({"app": {"port": free_port(), "loglevel": "error"},
            "defaults": {"session-lifetime": "1h", "session-lifetime-max": "2h", "node-quota": 5}}),
    );
    site.reconfigure(settings);
    site
}

fn database(url: &str) -> Value {
    json!({"database": {"sqlalchemy": {"sync_url": url, "async_url": url}}})
}

#[test]
fn missing_databases() {
    let missing = site(&json!({"database": null}));
    let port = free_port();
    let unreachable = site(&database(&format!(
        "postgresql://duffy:secret@127.0.0.1:{port}/d"
    )));
    let mysql = site(&database("mysql://localhost/duffy"));
    let nonsense = site(&database("duffy.sqlite"));
    let directory = site(&database("sqlite:////no/such/directory/duffy.sqlite"));
    let no_file = site(&json!({}));
    for command in SERVERS {
        refuses(&missing.duffy(), command, &["`database`", "sync_url"]);
        let place = format!("duffy@127.0.0.1:{port}/d");
        refuses(&unreachable.duffy(), command, &[&place, "check"]);
        refuses(&mysql.duffy(), command, &["sync_url", "postgresql"]);
        refuses(&nonsense.duffy(), command, &["sync_url"]);
        refuses(&directory.duffy(), command, &["/no/such/directory"]);
        refuses(
            &no_file.duffy(),
            command,
            &["duffy.sqlite", "duffy setup-db"],
        );
        assert!(!no_file.scratch().join("duffy.sqlite").exists());
    }
    for arguments in [
        &["migration", "upgrade", "head"][..],
        &["admin", "list-tenants"],
    ] {
        let place = format!("127.0.0.1:{port}");
        refuses(&unreachable.duffy(), arguments, &[&place]);
        refuses(&no_file.duffy(), arguments, &["duffy setup-db"]);
    }
    refuses(
        &directory.duffy(),
        &["setup-db"],
        &["/no/such/directory", "create it"],
    );
    let output = unreachable.duffy().run(&["serve"]);
    assert!(!output.stderr.contains("secret"), "{output:?}");
}

#[test]
fn unsuitable_schemas() {
    let settings = json!({"app": {"loglevel": "error"}});
    let lab = Lab::on_postgres(&[Pool::simulated("pool", 1, &json!({}))], &settings);
    let duffy = lab.site.duffy();
    let version = lab.sql("SELECT version_num FROM alembic_version");
    lab.sql("UPDATE alembic_version SET version_num = '6654d536b836'");
    for command in SERVERS {
        refuses(
            &duffy,
            command,
            &["6654d536b836", &version, "duffy migration upgrade"],
        );
    }
    lab.sql("UPDATE alembic_version SET version_num = 'fffffffffff1'");
    for command in SERVERS {
        refuses(&duffy, command, &["fffffffffff1", "newer"]);
    }
    refuses(
        &duffy,
        &["migration", "upgrade", "head"],
        &["fffffffffff1", "newer"],
    );
    lab.sql(
        "DROP TABLE alembic_version, sessions_nodes, sessions, nodes, tenants, events, \
         pool_states, idempotency_keys; DROP TYPE node_state_enum",
    );
    for command in SERVERS {
        refuses(&duffy, command, &["duffy setup-db"]);
    }
    refuses(&duffy, &["admin", "list-tenants"], &["duffy setup-db"]);
    let tables = lab.sql("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'");
    assert_eq!(tables, "0", "it created tables");
}

#[test]
fn unusable_ports_keys_and_pools() {
    let mut site = site(&json!({}));
    let duffy = site.duffy();
    duffy.succeed(&["setup-db"]);
    let servers: [&[&str]; 2] = [&["serve"], &["run"]];

    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap().to_string();
    site.reconfigure(&json!({"app": {"port": holder.local_addr().unwrap().port()}}));
    for command in servers {
        refuses(&duffy, command, &[&taken, "taken", "port"]);
    }
    site.reconfigure(&json!({"app": {"port": free_port(), "host": "192.0.2.1"}}));
    for command in servers {
        refuses(&duffy, command, &["192.0.2.1", "host"]);
    }
    site.reconfigure(&json!({"app": {"host": "127.0.0.1"}}));

    let key = site.service_key().path().to_owned();
    let with_key = |site: &mut Site, file: &str| {
        site.reconfigure(&json!({"ssh": {"identity-files": [file]}}));
    };
    let bad = site.scratch().join("bad_key");
    fs::write(&bad, "no key").unwrap();
    for command in SERVERS {
        with_key(&mut site, "/no/such/key");
        refuses(&duffy, command, &["/no/such/key"]);
        with_key(&mut site, bad.to_str().unwrap());
        refuses(&duffy, command, &["bad_key"]);
    }
    with_key(&mut site, key.to_str().unwrap());
    site.reconfigure(&json!({"ssh": {"config-file": "/no/such/ssh_config"}}));
    for command in SERVERS {
        refuses(&duffy, command, &["/no/such/ssh_config", "config-file"]);
    }
    site.reconfigure(&json!({"ssh": {"config-file": null}}));

    site.reconfigure(&json!({"defaults": null}));
    for command in SERVERS {
        refuses(&duffy, command, &["`defaults`"]);
    }
    let defaults = json!({"session-lifetime": "1h", "session-lifetime-max": "2h", "node-quota": 5});
    site.reconfigure(&json!({"defaults": defaults, "nodepools": null}));
    refuses(&duffy, &["worker"], &["nodepools.concrete"]);
    assert!(
        !site.scratch().join("home/.local").exists(),
        "it created files"
    );
}

#[test]
fn unusable_playbooks() {
    let settings = json!({"app": {"port": free_port(), "loglevel": "error"},
        "defaults": {"session-lifetime": "1h", "session-lifetime-max": "2h", "node-quota": 5}});
    let mut site = Site::sqlite(&[Pool::new("pool", 0)], &settings);
    site.reconfigure(&json!({"nodepools": {"concrete": {"pool": {"fill-level": 1}}}}));
    let duffy = site.duffy();
    duffy.succeed(&["setup-db"]);
    let commands: [&[&str]; 2] = [&["worker"], &["run"]];
    let change = |site: &mut Site, key: &str, value: &Value| -> Value {
        let before: Value = serde_json::from_slice(&fs::read(site.config()).unwrap()).unwrap();
        let before = before["nodepools"]["concrete"]["pool"]["mechanism"]["ansible"][key].clone();
        site.reconfigure(&json!({"nodepools": {"concrete": {"pool":
            {"mechanism": {"ansible": {key: value}}}}}}));
        before
    };
    let unreadable = site.scratch().join("playbooks/unreadable.yml");
    fs::write(&unreadable, "").unwrap();
    fs::set_permissions(&unreadable, fs::Permissions::from_mode(0o0)).unwrap();
    for (key, value, words) in [
        (
            "topdir",
            json!("/no/such/topdir"),
            &["/no/such/topdir", "topdir"][..],
        ),
        (
            "ansible-playbook",
            json!("no-such-program"),
            &["no-such-program", "install"],
        ),
        (
            "ansible-playbook",
            json!("/no/ansible-playbook"),
            &["/no/ansible-playbook"],
        ),
        (
            "provision",
            json!({"playbook": "no.yml"}),
            &["no.yml", "provision.playbook"],
        ),
        (
            "deprovision",
            json!({"playbook": "."}),
            &["deprovision.playbook"],
        ),
        ("provision", Value::Null, &["provision.playbook"]),
    ] {
        let before = change(&mut site, key, &value);
        for command in commands {
            let words = [&["nodepools.concrete.pool"], words].concat();
            refuses(&duffy, command, &words);
        }
        change(&mut site, key, &before);
    }
    // The program is searched in PATH.
    let nowhere = site.duffy().with_env("PATH", "/no/such/bin");
    refuses(&nowhere, &["worker"], &["ansible-playbook", "PATH"]);
    // The web API needs no playbooks.
    change(&mut site, "topdir", &json!("/no/such/topdir"));
    let serve = site.duffy().spawn(&["-l", "info", "serve"]);
    crate::support::wait_for_log(&serve, "serving the web API");
}
