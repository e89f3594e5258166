//! `duffy admin` over tenants in memory: output and errors as recorded from the original.

use std::cell::RefCell;

use chrono::{TimeDelta, TimeZone};
use clap::Parser;
use duffy_api::{ApiKeyUpdate, HIDDEN, TenantCreated};

use super::*;
use crate::commands::admin::AdminCommand;

const CREATED_KEY: &str = "11111111-2222-4333-8444-555555555555";

/// Tenants in memory, with the rules that matter for what is printed.
struct Memory(RefCell<Vec<Tenant>>);

impl Memory {
    fn new(names: &[&str]) -> Self {
        let memory = Self(RefCell::new(Vec::new()));
        for name in names {
            let created = TenantCreate {
                name: (*name).to_owned(),
                is_admin: false,
                ssh_key: "k".to_owned(),
                node_quota: None,
                session_lifetime: None,
                session_lifetime_max: None,
            };
            memory.create(created).unwrap();
        }
        memory
    }

    fn change(
        &self,
        id: i64,
        api_key: Option<String>,
        change: impl FnOnce(&mut Tenant),
    ) -> TenantUpdated {
        let mut tenants = self.0.borrow_mut();
        let tenant = tenants.iter_mut().find(|tenant| tenant.id == id).unwrap();
        change(tenant);
        apply_defaults(tenant);
        TenantUpdated::new(tenant.clone(), api_key)
    }

    fn active(&self, id: i64) -> Result<(), TenantFailure> {
        let tenants = self.0.borrow();
        let tenant = tenants.iter().find(|tenant| tenant.id == id).unwrap();
        if tenant.active {
            return Ok(());
        }
        let detail = format!("tenant {} (id={id}) is retired", tenant.name);
        Err(TenantFailure::Refused(detail))
    }
}

fn apply_defaults(tenant: &mut Tenant) {
    tenant.effective_node_quota = tenant.node_quota.unwrap_or(100_000);
    tenant.effective_session_lifetime = tenant.session_lifetime.unwrap_or(TimeDelta::hours(6));
    tenant.effective_session_lifetime_max =
        tenant.session_lifetime_max.unwrap_or(TimeDelta::hours(12));
}

impl Tenants for Memory {
    fn list(&self) -> Result<Vec<Tenant>, Failure> {
        Ok(self.0.borrow().clone())
    }

    fn find(&self, name: &str) -> Result<Option<i64>, Failure> {
        Ok(self
            .0
            .borrow()
            .iter()
            .find(|t| t.name == name)
            .map(|t| t.id))
    }

    fn create(&self, new: TenantCreate) -> Result<TenantCreated, TenantFailure> {
        if self.find(&new.name).unwrap().is_some() {
            return Err(TenantFailure::Refused("taken".to_owned()));
        }
        let created_at = Utc.with_ymd_and_hms(2026, 11, 22, 9, 21, 20).unwrap();
        let mut tenant = Tenant {
            retired_at: None,
            active: true,
            created_at: created_at + TimeDelta::microseconds(213_746),
            name: new.name,
            is_admin: new.is_admin,
            ssh_key: HIDDEN.to_owned(),
            node_quota: new.node_quota,
            session_lifetime: new.session_lifetime,
            session_lifetime_max: new.session_lifetime_max,
            id: self.0.borrow().len() as i64 + 1,
            effective_node_quota: 0,
            effective_session_lifetime: TimeDelta::zero(),
            effective_session_lifetime_max: TimeDelta::zero(),
        };
        apply_defaults(&mut tenant);
        self.0.borrow_mut().push(tenant.clone());
        Ok(TenantCreated::new(tenant, CREATED_KEY.to_owned()))
    }

    fn update(&self, id: i64, update: TenantUpdate) -> Result<TenantUpdated, TenantFailure> {
        self.active(id)?;
        let key = match update.api_key {
            Some(ApiKeyUpdate::Reset) => CREATED_KEY,
            _ => HIDDEN,
        };
        Ok(self.change(id, Some(key.to_owned()), |tenant| {
            tenant.node_quota = update.node_quota.unwrap_or(tenant.node_quota);
            tenant.session_lifetime = update.session_lifetime.unwrap_or(tenant.session_lifetime);
            tenant.session_lifetime_max = update
                .session_lifetime_max
                .unwrap_or(tenant.session_lifetime_max);
        }))
    }

    fn import(&self, _: &[OldTenant], _: bool) -> Result<Vec<String>, TenantFailure> {
        unreachable!("tried on real databases")
    }

    fn set_active(&self, id: i64, active: bool) -> Result<TenantUpdated, TenantFailure> {
        if !active {
            self.active(id)?;
        }
        Ok(self.change(id, None, |tenant| {
            tenant.active = active;
            tenant.retired_at = (!active).then(|| Utc.timestamp_opt(0, 0).unwrap());
        }))
    }
}

/// What a line prints, or its error.
fn admin(memory: &Memory, args: &[&str]) -> Result<String, AdminFailure> {
    let line = ["duffy", "admin"].iter().chain(args);
    let crate::cli::Command::Admin(AdminCommand::Tenants(command)) =
        crate::cli::Cli::try_parse_from(line).unwrap().command
    else {
        panic!("not a command about tenants");
    };
    check(&command)?;
    run(memory, command)
}

fn refusal(name: &str, detail: &str) -> AdminFailure {
    AdminFailure::Refused {
        name: name.to_owned(),
        detail: detail.to_owned(),
    }
}

#[test]
fn lists() {
    let memory = Memory::new(&["tenant", "admin", "retired", "other"]);
    admin(&memory, &["retire-tenant", "retired"]).unwrap();
    let list = |args: &[&str]| admin(&memory, &[&["list-tenants"], args].concat()).unwrap();
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
    assert_eq!(admin(&Memory::new(&[]), &["list-tenants"]).unwrap(), "");
}

#[test]
fn shows() {
    let memory = Memory::new(&["tenant"]);
    let args = [
        "create-tenant",
        "--node-quota",
        "3",
        "--session-lifetime=1h",
        "--session-lifetime-max=2h",
    ];
    admin(&memory, &[&args[..], &["other", "k"]].concat()).unwrap();
    admin(&memory, &["retire-tenant", "other"]).unwrap();
    assert_eq!(
        admin(&memory, &["show-tenant", "tenant"]).unwrap(),
        "OK: tenant: id=1 node_quota=None effective_node_quota=100000 session_lifetime=None \
         effective_session_lifetime=6:00:00 session_lifetime_max=None \
         effective_session_lifetime_max=12:00:00 active=True \
         created_at=2026-11-22 09:21:20.213746+00:00 retired_at=None"
    );
    assert_eq!(
        admin(&memory, &["show-tenant", "other"]).unwrap(),
        "OK: other: id=2 node_quota=3 effective_node_quota=3 session_lifetime=1:00:00 \
         effective_session_lifetime=1:00:00 session_lifetime_max=2:00:00 \
         effective_session_lifetime_max=2:00:00 active=False \
         created_at=2026-11-22 09:21:20.213746+00:00 retired_at=1970-01-01 00:00:00+00:00"
    );
    assert_eq!(
        admin(&memory, &["show-tenant", "nope"]),
        Err(refusal("nope", "Not Found"))
    );
}

#[test]
fn creates_and_updates() {
    let memory = Memory::new(&[]);
    let create = ["create-tenant", "cli", "ssh-ed25519 AAAA"];
    assert_eq!(
        admin(&memory, &create).unwrap(),
        format!("OK: cli: {CREATED_KEY}")
    );
    assert_eq!(admin(&memory, &create), Err(refusal("cli", "taken")));
    let update = |args: &[&str]| admin(&memory, &[&["update-tenant"], args, &["cli"]].concat());
    assert_eq!(
        update(&["--api-key", "reset"]).unwrap(),
        format!(
            "OK: cli: ssh_key=********** api_key={CREATED_KEY} node_quota=None effective_node_quota=100000 \
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
    assert_eq!(update(&[]), Err(AdminFailure::NothingToChange));
    assert_eq!(
        update(&["--ssh-key", ""]),
        Err(AdminFailure::NothingToChange)
    );
    let nope = admin(&memory, &["update-tenant", "--node-quota", "5", "nope"]);
    assert_eq!(nope, Err(refusal("nope", "Not Found")));
}

#[test]
fn keys_that_harm_are_refused_and_useless_ones_told() {
    let memory = Memory::new(&["cli"]);
    let warned = |args: &[&str]| {
        let line = ["duffy", "admin"].iter().chain(args);
        match crate::cli::Cli::try_parse_from(line).unwrap().command {
            crate::cli::Command::Admin(AdminCommand::Tenants(command)) => useless_keys(&command),
            _ => None,
        }
    };
    for (key, line) in [
        ("ssh-rsa A\nB\u{1b}[2J", "line 2 of the SSH key"),
        ("a\n\n### DUFFY tenant credentials", "line 3 of the SSH key"),
    ] {
        for args in [
            &["create-tenant", "x", key][..],
            &["update-tenant", "--ssh-key", key, "cli"],
        ] {
            let Err(AdminFailure::Refused { detail, .. }) = admin(&memory, args) else {
                panic!("{args:?}")
            };
            assert!(detail.contains(line), "{detail}");
        }
    }
    let good = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
    assert_eq!(warned(&["create-tenant", "x", good]), None);
    assert_eq!(warned(&["update-tenant", "--node-quota", "1", "x"]), None);
    assert_eq!(
        warned(&["create-tenant", "x", "hunter2"]).unwrap(),
        "WARNING: x: line 1 of the SSH key is no OpenSSH public key: nobody can log in to nodes with it"
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
    let memory = Memory::new(&["cli"]);
    let retire = |args: &[&str]| admin(&memory, &[&["retire-tenant"], args].concat());
    assert_eq!(retire(&["cli"]).unwrap(), "OK: cli: active=False");
    assert_eq!(
        retire(&["cli"]),
        Err(refusal("cli", "tenant cli (id=1) is retired"))
    );
    assert_eq!(
        retire(&["--retire", "--unretire", "cli"]).unwrap(),
        "OK: cli: active=True"
    );
    assert_eq!(retire(&["nope"]), Err(refusal("nope", "Not Found")));
}
