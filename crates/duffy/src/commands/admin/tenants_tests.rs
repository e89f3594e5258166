//! `duffy admin` over tenants in an SQLite file: output and errors as recorded from the original.

use std::sync::Arc;

use chrono::{TimeDelta, TimeZone};
use clap::Parser;
use duffy_config::Config;
use tempfile::TempDir;
use uuid::Uuid;

use super::*;
use crate::args::admin::AdminCommand;
use crate::commands::database::{scratch_database, with_context};

struct Site {
    config: Arc<Config>,
    _directory: TempDir,
}

impl Site {
    /// With tenants of these names.
    fn new(names: &[&str]) -> Self {
        let (directory, config) = scratch_database();
        let site = Self {
            config,
            _directory: directory,
        };
        for name in names {
            site.admin(&["create-tenant", name, "k"]).unwrap();
        }
        site
    }

    /// What a line prints, or its error.
    fn admin(&self, args: &[&str]) -> Result<String, Failure> {
        let command = parse(args);
        check(&command)?;
        with_context(&self.config, async |ctx| manage(ctx, &command).await)
    }
}

fn parse(args: &[&str]) -> TenantCommand {
    let line = ["duffy", "admin"].iter().chain(args);
    let crate::cli::Command::Admin(AdminCommand::Tenants(command)) =
        crate::cli::Cli::try_parse_from(line).unwrap().command
    else {
        panic!("not a command about tenants");
    };
    command
}

#[test]
fn lists() {
    let site = Site::new(&["tenant", "admin", "retired", "other"]);
    site.admin(&["retire-tenant", "retired"]).unwrap();
    let list = |args: &[&str]| site.admin(&[&["list-tenants"], args].concat()).unwrap();
    assert_eq!(list(&[]), "OK: admin\nOK: other\nOK: tenant");
    assert_eq!(
        list(&["--all"]),
        "OK: admin\nOK: other\nOK: retired\nOK: tenant"
    );
    assert_eq!(list(&["--quiet"]), "admin\nother\ntenant");
    assert_eq!(
        list(&["--all", "--active", "--quiet", "--no-quiet"]),
        list(&[])
    );
    assert_eq!(Site::new(&[]).admin(&["list-tenants"]).unwrap(), "");
}

#[test]
fn shows() {
    let site = Site::new(&["tenant"]);
    let args = [
        "create-tenant",
        "--node-quota",
        "3",
        "--session-lifetime=1h",
        "--session-lifetime-max=2h",
    ];
    site.admin(&[&args[..], &["other", "k"]].concat()).unwrap();
    site.admin(&["retire-tenant", "other"]).unwrap();
    let show = |name| {
        let shown = site.admin(&["show-tenant", name]).unwrap();
        let (shown, times) = shown.split_once(" created_at=").unwrap();
        let (created, retired) = times.split_once(" retired_at=").unwrap();
        assert!(created.ends_with("+00:00"), "{created}");
        (shown.to_owned(), retired.to_owned())
    };
    let (tenant, retired) = show("tenant");
    assert_eq!(
        tenant,
        "OK: tenant: id=1 node_quota=None effective_node_quota=100000 session_lifetime=None \
         effective_session_lifetime=6:00:00 session_lifetime_max=None \
         effective_session_lifetime_max=12:00:00 active=True"
    );
    assert_eq!(retired, "None");
    let (other, retired) = show("other");
    assert_eq!(
        other,
        "OK: other: id=2 node_quota=3 effective_node_quota=3 session_lifetime=1:00:00 \
         effective_session_lifetime=1:00:00 session_lifetime_max=2:00:00 \
         effective_session_lifetime_max=2:00:00 active=False"
    );
    assert!(retired.ends_with("+00:00"), "{retired}");
    assert_eq!(
        site.admin(&["show-tenant", "nope"]),
        Err(refused("nope", "Not Found"))
    );
}

#[test]
fn times_are_spelled_as_python_spells_them() {
    let time = Utc.with_ymd_and_hms(2026, 11, 22, 9, 21, 20).unwrap();
    assert_eq!(python_time(time), "2026-11-22 09:21:20+00:00");
    assert_eq!(
        python_time(time + TimeDelta::microseconds(213_746)),
        "2026-11-22 09:21:20.213746+00:00"
    );
}

#[test]
fn creates_and_updates() {
    let site = Site::new(&[]);
    let create = ["create-tenant", "cli", "ssh-ed25519 AAAA"];
    let created = site.admin(&create).unwrap();
    let key = created.strip_prefix("OK: cli: ").unwrap();
    assert!(Uuid::try_parse(key).is_ok(), "{key}");
    let taken = r#"there is a tenant named "cli" already; names must be unique"#;
    assert_eq!(site.admin(&create), Err(refused("cli", taken)));
    let update = |args: &[&str]| site.admin(&[&["update-tenant"], args, &["cli"]].concat());
    let reset = update(&["--api-key", "reset"]).unwrap();
    let (_, new_key) = reset.split_once(" api_key=").unwrap();
    let (new_key, _) = new_key.split_once(' ').unwrap();
    assert!(Uuid::try_parse(new_key).is_ok(), "{new_key}");
    assert_ne!(new_key, key);
    assert_eq!(
        reset,
        format!(
            "OK: cli: ssh_key=********** api_key={new_key} node_quota=None effective_node_quota=100000 \
             session_lifetime=None effective_session_lifetime=6:00:00 session_lifetime_max=None \
             effective_session_lifetime_max=12:00:00"
        )
    );
    assert_eq!(
        update(&[
            "--node-quota",
            "5",
            "--session-lifetime",
            "1d2h",
            "--session-lifetime-max",
            "1w"
        ])
        .unwrap(),
        "OK: cli: ssh_key=********** api_key=********** node_quota=5 effective_node_quota=5 \
         session_lifetime=1 day, 2:00:00 effective_session_lifetime=1 day, 2:00:00 \
         session_lifetime_max=7 days, 0:00:00 effective_session_lifetime_max=7 days, 0:00:00"
    );
    assert_eq!(
        update(&["--node-quota", "none", "--session-lifetime", "null"]).unwrap(),
        "OK: cli: ssh_key=********** api_key=********** node_quota=None effective_node_quota=100000 \
         session_lifetime=None effective_session_lifetime=6:00:00 \
         session_lifetime_max=7 days, 0:00:00 effective_session_lifetime_max=7 days, 0:00:00"
    );
    for args in [&[][..], &["--ssh-key", ""]] {
        let refused = update(args).unwrap_err();
        assert_eq!(refused.prefix, "ERROR: ");
        assert!(refused.text.starts_with("nothing to change"), "{refused}");
    }
    let nope = site.admin(&["update-tenant", "--node-quota", "5", "nope"]);
    assert_eq!(nope, Err(refused("nope", "Not Found")));
}

#[test]
fn keys_that_harm_are_refused_and_useless_ones_told() {
    let site = Site::new(&["cli"]);
    let warned = |args: &[&str]| {
        let command = parse(args);
        ssh_key(&command).and_then(|(name, key)| useless_lines(name, key))
    };
    for (key, line) in [
        ("ssh-rsa A\nB\u{1b}[2J", "line 2 of the SSH key"),
        ("a\n\n### DUFFY tenant credentials", "line 3 of the SSH key"),
    ] {
        for args in [
            &["create-tenant", "x", key][..],
            &["update-tenant", "--ssh-key", key, "cli"],
        ] {
            let detail = site.admin(args).unwrap_err().text;
            assert!(detail.contains(line), "{detail}");
        }
    }
    let good = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
    assert_eq!(warned(&["create-tenant", "x", good]), None);
    assert_eq!(warned(&["update-tenant", "--node-quota", "1", "x"]), None);
    assert_eq!(
        warned(&["create-tenant", "x", "hunter2"]).unwrap(),
        "WARNING: x: line 1 of the SSH key is not an OpenSSH public key: nobody can log in to nodes with it"
    );
    let two = format!("a\n{good}\nb");
    let warning = warned(&["update-tenant", "--ssh-key", &two, "x"]).unwrap();
    assert!(
        warning.starts_with("WARNING: x: lines 1, 3 of"),
        "{warning}"
    );
}

#[test]
fn retires_and_takes_back() {
    let site = Site::new(&["cli"]);
    let retire = |args: &[&str]| site.admin(&[&["retire-tenant"], args].concat());
    assert_eq!(retire(&["cli"]).unwrap(), "OK: cli: active=False");
    assert_eq!(
        retire(&["cli"]),
        Err(refused("cli", "tenant cli (id=1) is retired"))
    );
    assert_eq!(
        retire(&["--retire", "--unretire", "cli"]).unwrap(),
        "OK: cli: active=True"
    );
    assert_eq!(retire(&["nope"]), Err(refused("nope", "Not Found")));
}
