//! `duffy admin`: what it does with tenants, and prints.

use std::process::ExitCode;

use chrono::{DateTime, Timelike, Utc};
use duffy_api::duration::display;
use duffy_api::{Tenant, TenantCreate, TenantUpdate, TenantUpdated};
use duffy_server::context::Ctx;
use duffy_server::credentials::{check_ssh_keys, lines_without_key};
use duffy_server::db::tenants::find_tenant_by_name;
use duffy_server::lifecycle::tenants::{self, ImportedTenant, TenantError};
use duffy_server::lifecycle::views;
use secrecy::SecretString;
use serde_json::{Value, json};

use super::tenant_args::{
    CreateTenantArgs, ImportTenantsArgs, ListTenantsArgs, OldDumpArgs, TenantCommand,
    UpdateTenantArgs,
};
use crate::commands::old_dump::{self, OldTenant};
use crate::commands::server_calls::{Server, connect};
use crate::config::Loaded;
use crate::failure::Failure;
use crate::output;
use crate::values::OrDefault;

/// Why nothing, or not all, was done.
#[derive(Debug, PartialEq, Eq)]
enum AdminFailure {
    /// Nothing can be done at all.
    Failed(Failure),
    /// This tenant's matter was refused.
    Refused { name: String, detail: String },
    /// `update-tenant` without a change.
    NothingToChange,
}

impl From<Failure> for AdminFailure {
    fn from(failure: Failure) -> Self {
        AdminFailure::Failed(failure)
    }
}

pub fn main(command: TenantCommand, loaded: &Loaded) -> ExitCode {
    let done = check(&command)
        .and_then(|()| Ok(connect(loaded)?))
        .and_then(|server| {
            let warning = useless_keys(&command);
            let text = run(&server, command)?;
            if !text.is_empty() {
                output::data(&text)?;
            }
            Ok(warning)
        })
        .map(|warning| {
            if let Some(warning) = warning {
                output::words(&warning);
            }
        });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(AdminFailure::Failed(failure)) => output::finish(Err(failure)),
        Err(AdminFailure::Refused { name, detail }) => {
            output::words(&format!("ERROR: {name}\nERROR DETAIL: {detail}"));
            ExitCode::FAILURE
        }
        Err(AdminFailure::NothingToChange) => {
            output::words(
                "ERROR: nothing to change: give --ssh-key, --api-key, --node-quota, \
                 --session-lifetime or --session-lifetime-max",
            );
            ExitCode::FAILURE
        }
    }
}

/// What can be refused before the database is asked.
fn check(command: &TenantCommand) -> Result<(), AdminFailure> {
    match command {
        TenantCommand::UpdateTenant(args) if update(args) == TenantUpdate::default() => {
            Err(AdminFailure::NothingToChange)
        }
        _ => match ssh_key(command) {
            Some((name, key)) => {
                check_ssh_keys(key).map_err(|error| refused(name, error.to_string()))
            }
            None => Ok(()),
        },
    }
}

/// The SSH key that a command gives, and to whom.
fn ssh_key(command: &TenantCommand) -> Option<(&str, &str)> {
    let (name, key) = match command {
        TenantCommand::CreateTenant(args) => (&args.name, args.ssh_key.as_str()),
        TenantCommand::UpdateTenant(args) => (&args.name, args.ssh_key.as_deref()?),
        _ => return None,
    };
    (!key.is_empty()).then_some((name.as_str(), key))
}

/// What to say when a tenant was given lines by which nobody can log in.
fn useless_keys(command: &TenantCommand) -> Option<String> {
    let (name, key) = ssh_key(command)?;
    useless_lines(name, &lines_without_key(key))
}

/// The same of lines found already.
fn useless_lines(name: &str, lines: &[usize]) -> Option<String> {
    let numbers: Vec<_> = lines.iter().map(ToString::to_string).collect();
    let (noun, verb) = match lines {
        [] => return None,
        [_] => ("line", "is no OpenSSH public key"),
        _ => ("lines", "are no OpenSSH public keys"),
    };
    Some(format!(
        "WARNING: {name}: {noun} {} of the SSH key {verb}: nobody can log in to nodes with it",
        numbers.join(", ")
    ))
}

/// Does it, and says what to print.
fn run(server: &Server, command: TenantCommand) -> Result<String, AdminFailure> {
    match command {
        TenantCommand::ListTenants(args) => {
            let all = server.with_context(async |ctx| views::list_tenants(&ctx, None).await)?;
            Ok(list(all.map_err(Failure::new)?, &args))
        }
        TenantCommand::ShowTenant { name } => ask(server, &name, async |ctx| {
            let mut all = views::list_tenants(&ctx, None).await?.into_iter();
            let found = all.find(|tenant| tenant.name == name);
            found.as_ref().map(shown).ok_or(TenantError::NotFound)
        }),
        TenantCommand::CreateTenant(args) => {
            let name = args.name.clone();
            let created = ask(server, &name, async |ctx| {
                tenants::create_tenant(&ctx, create(args)).await
            })?;
            Ok(format!("OK: {name}: {}", created.api_key))
        }
        TenantCommand::UpdateTenant(args) => {
            let updated = ask(server, &args.name, async |ctx| {
                let id = find(&ctx, &args.name).await?;
                tenants::update_tenant(&ctx, id, update(&args)).await
            })?;
            Ok(changed(&args.name, &updated))
        }
        TenantCommand::ImportTenants(args) => import(server, &args),
        TenantCommand::GenerateUsermap(args) => Ok(usermap(&read_dump(&args)?)),
        TenantCommand::RetireTenant(args) => {
            let set = ask(server, &args.name, async |ctx| {
                let id = find(&ctx, &args.name).await?;
                tenants::set_tenant_active(&ctx, id, args.unretire).await
            })?;
            let active = python_bool(set.active);
            Ok(format!("OK: {}: active={active}", args.name))
        }
    }
}

/// Asks the server; `name` is whose matter it refuses.
fn ask<T>(
    server: &Server,
    name: &str,
    call: impl AsyncFnOnce(Ctx) -> Result<T, TenantError>,
) -> Result<T, AdminFailure> {
    let answer = server.with_context(async |ctx| call(ctx).await)?;
    answer.map_err(|error| match error {
        TenantError::Credentials(_) | TenantError::Db(_) => Failure::new(error).into(),
        TenantError::NotFound => refused(name, "Not Found"),
        TenantError::Retired { .. } | TenantError::NameTaken { .. } => {
            refused(name, error.to_string())
        }
    })
}

fn refused(name: &str, detail: impl Into<String>) -> AdminFailure {
    AdminFailure::Refused {
        name: name.to_owned(),
        detail: detail.into(),
    }
}

/// The number of the tenant of this name.
async fn find(ctx: &Ctx, name: &str) -> Result<i64, TenantError> {
    let found = find_tenant_by_name(&ctx.db, name).await?;
    found.map(|tenant| tenant.id).ok_or(TenantError::NotFound)
}

/// Reads the dumps, and says who or what in them is of no use.
fn read_dump(args: &OldDumpArgs) -> Result<Vec<OldTenant>, Failure> {
    let dump = old_dump::read(&args.users, &args.userkeys)?;
    for skipped in &dump.skipped {
        output::words(&format!("SKIPPED: {skipped}"));
    }
    Ok(dump.tenants)
}

fn import(server: &Server, args: &ImportTenantsArgs) -> Result<String, AdminFailure> {
    let mut old = read_dump(&args.dump)?;
    let new = old.iter().map(|tenant| ImportedTenant {
        name: tenant.name.clone(),
        ssh_key: tenant.ssh_key.clone(),
        api_key: SecretString::from(tenant.api_key.clone()),
    });
    let new: Vec<_> = new.collect();
    let users = args.dump.users.display().to_string();
    let taken = ask(server, &users, async |ctx| {
        tenants::import_tenants(&ctx, &new, args.dry_run).await
    })?;
    for name in &taken {
        output::words(&format!("SKIPPED: {name}: exists"));
    }
    old.retain(|tenant| !taken.contains(&tenant.name));
    for tenant in &old {
        if let Some(warning) = useless_lines(&tenant.name, &lines_without_key(&tenant.ssh_key)) {
            output::words(&warning);
        }
    }
    if args.dry_run {
        output::words("This was a dry run: nothing has been written.");
    }
    let lines: Vec<_> = old
        .iter()
        .map(|tenant| format!("OK: {}", tenant.name))
        .collect();
    Ok(lines.join("\n"))
}

/// A configuration file's worth of who has which key.
fn usermap(tenants: &[OldTenant]) -> String {
    let users: serde_json::Map<String, Value> = tenants
        .iter()
        .map(|tenant| (tenant.api_key.clone(), Value::from(tenant.name.as_str())))
        .collect();
    duffy_config::yaml::dump(&json!({"metaclient": {"usermap": users}}))
}

fn create(args: CreateTenantArgs) -> TenantCreate {
    TenantCreate {
        name: args.name,
        is_admin: args.is_admin,
        ssh_key: args.ssh_key,
        node_quota: args.node_quota.and_then(OrDefault::into_option),
        session_lifetime: args.session_lifetime.and_then(OrDefault::into_option),
        session_lifetime_max: args.session_lifetime_max.and_then(OrDefault::into_option),
    }
}

/// An empty SSH key counts as none given, as in the original.
fn update(args: &UpdateTenantArgs) -> TenantUpdate {
    TenantUpdate {
        ssh_key: args.ssh_key.clone().filter(|key| !key.is_empty()),
        api_key: args.api_key.clone(),
        node_quota: args.node_quota.map(OrDefault::into_option),
        session_lifetime: args.session_lifetime.map(OrDefault::into_option),
        session_lifetime_max: args.session_lifetime_max.map(OrDefault::into_option),
    }
}

fn list(mut tenants: Vec<Tenant>, args: &ListTenantsArgs) -> String {
    tenants.retain(|tenant| tenant.active || args.all);
    tenants.sort_by(|a, b| a.name.cmp(&b.name));
    let mark = if args.quiet { "" } else { "OK: " };
    let lines: Vec<_> = tenants
        .iter()
        .map(|tenant| format!("{mark}{}", tenant.name))
        .collect();
    lines.join("\n")
}

fn shown(tenant: &Tenant) -> String {
    format!(
        "OK: {}: id={} node_quota={} effective_node_quota={} session_lifetime={} \
         effective_session_lifetime={} session_lifetime_max={} effective_session_lifetime_max={} \
         active={} created_at={} retired_at={}",
        tenant.name,
        tenant.id,
        or_none(tenant.node_quota, |quota| quota.to_string()),
        tenant.effective_node_quota,
        or_none(tenant.session_lifetime, display),
        display(tenant.effective_session_lifetime),
        or_none(tenant.session_lifetime_max, display),
        display(tenant.effective_session_lifetime_max),
        python_bool(tenant.active),
        python_time(tenant.created_at),
        or_none(tenant.retired_at, python_time),
    )
}

fn changed(name: &str, tenant: &TenantUpdated) -> String {
    format!(
        "OK: {name}: ssh_key={} api_key={} node_quota={} effective_node_quota={} \
         session_lifetime={} effective_session_lifetime={} session_lifetime_max={} \
         effective_session_lifetime_max={}",
        tenant.ssh_key,
        or_none(tenant.api_key.as_ref(), ToString::to_string),
        or_none(tenant.node_quota, |quota| quota.to_string()),
        tenant.effective_node_quota,
        or_none(tenant.session_lifetime, display),
        display(tenant.effective_session_lifetime),
        or_none(tenant.session_lifetime_max, display),
        display(tenant.effective_session_lifetime_max),
    )
}

// Scripts of sites read these lines, so values are spelled as Python spells them.

fn or_none<T>(value: Option<T>, show: impl FnOnce(T) -> String) -> String {
    value.map_or_else(|| "None".to_owned(), show)
}

fn python_bool(value: bool) -> &'static str {
    if value { "True" } else { "False" }
}

fn python_time(time: DateTime<Utc>) -> String {
    let micros = time.nanosecond() / 1000;
    let seconds = time.format("%Y-%m-%d %H:%M:%S");
    if micros == 0 {
        format!("{seconds}+00:00")
    } else {
        format!("{seconds}.{micros:06}+00:00")
    }
}

#[cfg(feature = "sqlite")]
#[cfg(test)]
#[path = "tenants_tests.rs"]
mod tests;
